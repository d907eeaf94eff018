// What can be done to a job, in each of its states.

import { path, post, remove } from "../api.js";
import { h, icon } from "../dom.js";
import { act, ask, toast } from "../parts.js";

const FAILS_AGAIN = new Set(["bad_data", "bad_base_model", "bad_spec", "non_finite_loss"]);

/** Buttons for the job as it is; `onChanged` gets it as it is afterwards. */
export function jobActions(job, onChanged) {
  const actions = [];
  const isLive = job.status === "queued" || job.status === "running";
  if (isLive && job.desired === "run") actions.push(steer("Pause", "pause", job, onChanged));
  if (job.status === "paused") actions.push(steer("Resume", "play", job, onChanged, "resume"));
  if ((isLive || job.status === "paused") && job.desired !== "cancel") actions.push(cancelButton(job, onChanged));
  if (job.status === "failed" || job.status === "cancelled") actions.push(retryButton(job));
  const copyKind = isHopeless(job) ? "a.button.primary" : "a.button";
  actions.push(h(copyKind, { href: `#/new?from=${job.id}`, "data-focus": "copy" }, "New job like this"));
  if (job.status === "succeeded" && job.spec.method !== "reward") {
    actions.push(h("a.button", { href: `#/play?job=${job.id}`, "data-focus": "play" }, "Try it"));
    actions.push(h("a.button", { href: `#/new?continue=${job.id}`, "data-focus": "further" }, "Continue from this model"));
    actions.push(h("a.button", { href: `#/generations/new?job=${job.id}`, "data-focus": "generate" }, "Generate answers"));
  }
  if (job.status === "succeeded" && job.spec.method !== "supervised")
    actions.push(h("a.button", { href: `#/judgements/new?reward_job=${job.id}`, "data-focus": "judge" }, "Judge with it"));
  if (!isLive && job.status !== "paused") actions.push(deleteButton(job));
  return actions;
}

/** Would a retry fail as it did? Then a job with other settings is the way. */
function isHopeless({ status, error }) {
  return status === "failed" && FAILS_AGAIN.has(error?.code);
}

function button(label, iconName, kind, work) {
  const element = h("button", { type: "button", class: kind, "data-focus": label }, icon(iconName), label);
  element.addEventListener("click", () => act(element, work));
  return element;
}

function steer(label, iconName, job, onChanged, verb = label.toLowerCase()) {
  return button(label, iconName, "", async () => onChanged(await post(path("jobs", job.id, verb))));
}

function cancelButton(job, onChanged) {
  return button("Cancel", "stop", "danger", async () => {
    const choices = [{ value: "drop", label: "Cancel the job", kind: "danger" }];
    if (job.status === "running") choices.push({ value: "save", label: "Cancel, keep the policy", kind: "primary" });
    const text =
      "The job ends at its next step and cannot be resumed; a retry makes a new job from its newest checkpoint. “Keep the policy” publishes it as it is now.";
    const choice = await ask("Cancel this job?", text, choices);
    if (!choice) return;
    onChanged(await post(`${path("jobs", job.id, "cancel")}${choice === "save" ? "?save=true" : ""}`));
  });
}

function retryButton(job) {
  return button("Retry", "retry", isHopeless(job) ? "" : "primary", async () => {
    const made = await post(path("jobs", job.id, "retry"), undefined, { creates: true });
    toast("A new job continues from the newest checkpoint.");
    location.hash = `#${path("jobs", made.id)}`;
  });
}

function deleteButton(job) {
  return button("Delete", "trash", "danger", async () => {
    const text = `This deletes “${job.name ?? job.id}” with its curves, checkpoints and model. This cannot be undone.`;
    if (!(await ask("Delete this job?", text, [{ value: "yes", label: "Delete", kind: "danger" }]))) return;
    await remove(path("jobs", job.id));
    toast("Deleted.");
    location.hash = "#/jobs";
  });
}
