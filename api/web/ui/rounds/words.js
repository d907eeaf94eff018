// Names of stages and states of rounds, and where a stage's own page is.

import { path } from "../api.js";
import { count, metric, plural } from "../format.js";
import { shareText } from "../judging/words.js";

export const STAGES = {
  split: "Hold prompts out",
  initial: "Train the first policy",
  generate: "Answer",
  match: "Set beside the file",
  judge: "Judge",
  pair: "Make pairs",
  mix: "Mix in",
  train: "Train",
  answer: "Answer held-out prompts",
  gather: "Gather answers",
  compare: "Compare with the one before",
  compare_first: "Compare with the first",
  drift: "Measure drift",
  drift_first: "Measure drift from the first",
};

const KINDS = { finished: "succeeded", waiting: "queued", skipped: "cancelled" };
const PAGES = { dataset: "datasets", generation: "generations", judgement: "judgements", job: "jobs" };

const STOP_REASONS = {
  all_rounds: "All rounds are done.",
  no_improvement: "The newest policy is no better than the one before; extend the rounds to go on all the same.",
  no_pairs: "The judge found no answer better than another: there is nothing to learn.",
};

export function badgeKind(status) {
  return KINDS[status] ?? status;
}

export function stopText(reason) {
  return STOP_REASONS[reason] ?? reason;
}

/** The page of what does a step; null of scores, which have none, and while there is no such thing. */
export function pageOf({ kind, child_id: id, status }) {
  return status === "waiting" || status === "skipped" || !PAGES[kind] ? null : `#${path(PAGES[kind], id)}`;
}

/** What came of a step, in a few words; "" where its page says it. */
export function resultText({ stage, result }) {
  if (stage === "judge") return result.num_pairs === undefined ? "" : plural(result.num_pairs, "pair"); // of one policy's answers
  if (result.win_rate) return `wins ${shareText(result.win_rate)}`;
  if (result.drift) return `${metric(result.drift.kl)} nats an answer`;
  if (result.num_rows !== undefined) return plural(result.num_rows, "row");
  return result.num_answers === undefined ? "" : `${count(result.num_answers)} answers`;
}
