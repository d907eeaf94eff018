// Names and figures of sweeps, as their pages show them.

import { metric as number, percent, signed } from "../format.js";

const NAMES = {
  "rewards/accuracies": "Accuracy",
  "rewards/margins": "Margin",
  loss: "Loss",
  mean_token_accuracy: "Token accuracy",
};
const KINDS = { finished: "succeeded", waiting: "queued", refused: "failed", deleted: "cancelled" };

/** What the best member is chosen by. */
export function metricName(metric) {
  return `${NAMES[metric] ?? metric}, held-out`;
}

export function valueText(metric, value) {
  if (value === null) return "–";
  if (metric === "rewards/margins") return signed(value);
  return metric === "loss" ? number(value) : percent(value);
}

/** The kind of badge of a sweep's or a member's status. */
export function badgeKind(status) {
  return KINDS[status] ?? status;
}
