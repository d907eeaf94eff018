// Names of judges, verdicts and faults, as pages of judgements show them.

import { percent } from "../format.js";

/** Judges as forms offer them. */
export const JUDGES = {
  length: "Length: the shorter or the longer answer",
  regex: "Regular expression: the answer in which it is found",
  exact_match: "Exact text: the answer that is it",
  json_schema: "JSON schema: the answer that keeps to it",
  reward: "Rewards of a job",
  model: "Language model, as the operator has set it up",
  arena: "People: the votes of an arena",
};

export const FAULTS = {
  timed_out: ["Timed out", "The language model did not answer in time."],
  unreachable: ["Unreachable", "The language model could not be asked."],
  http_error: ["HTTP error", "The language model answered with an error."],
  nonsense: ["No verdict", "The answer of the language model held no verdict."],
  not_scored: ["Not scored", "The job could not score the pair; the pair says why."],
  not_voted: ["Not voted", "Nobody has voted on the pair."],
  budget: ["Out of budget", "The requests that the judgement may cost were used up."],
};

/** Of a generation or judgement whose rounds are paused. */
export const HELD = "Held: its rounds are paused, and it goes on with them.";

/** A judge in a few words. */
export function judgeName(judge) {
  const { kind } = judge;
  if (kind === "length") return `${judge.prefers ?? "shorter"} is better`;
  if (kind === "regex") return `matches ${shorten(judge.pattern)}`;
  if (kind === "exact_match") return `is “${shorten(judge.text)}”`;
  if (kind === "json_schema") return "keeps to a JSON schema";
  if (kind === "reward") return `rewards of ${judge.job_id}`;
  return kind === "arena" ? `votes in ${judge.arena_id}` : "language model";
}

function shorten(text) {
  return text.length > 40 ? `${text.slice(0, 39)}…` : text;
}

/** "64.0 % (55 to 72 %)" */
export function shareText(share) {
  return `${percent(share.value)} (${percent(share.low, 0).replace(" %", "")} to ${percent(share.high, 0)})`;
}

/** The judgement in which a judge has judged what a dataset's own id names. */
export function rootOf(source) {
  return source.split("@")[0];
}
