// The steps of rounds in order, each with what does it, what came of it, and how long it took.

import { h } from "../dom.js";
import { between, time } from "../format.js";
import { badge } from "../parts.js";
import { badgeKind, pageOf, resultText, STAGES } from "./words.js";

/** One group for each round; those that are done are folded, but for the newest. */
export function timeline(steps) {
  const numbers = [...new Set(steps.map(({ round }) => round))];
  const newest = numbers.findLast((number) => steps.some((step) => step.round === number && step.status !== "waiting")) ?? numbers[0];
  return numbers.map((number) => {
    const own = steps.filter(({ round }) => round === number);
    return h(
      "details.round",
      { open: number === newest, "data-round": String(number) },
      h("summary", null, number ? `Round ${number}` : "Before the first round", " ", h("span.hint", null, doneText(own))),
      h("ol.timeline", null, own.map(stepView)),
    );
  });
}

function doneText(steps) {
  const done = steps.filter(({ status }) => ["succeeded", "skipped"].includes(status)).length;
  return `${done} of ${steps.length} steps`;
}

function stepView(step) {
  const { stage, status, error, earlier_ids: earlier, started_at: started, finished_at: finished } = step;
  const page = pageOf(step);
  const name = STAGES[stage] ?? stage;
  const took = started ? h("time.hint", { datetime: started, title: time(started) }, finished ? between(started, finished) : `since ${time(started)}`) : null;
  return h(
    "li",
    { "aria-current": status === "running" ? "step" : null, class: `is-${badgeKind(status)}` },
    h("div.title-row.flat", null, h("div", null, page ? h("a", { href: page }, name) : name, " ", badge(status, badgeKind(status))), took),
    resultText(step) ? h("p.hint", null, resultText(step)) : null,
    error ? h("p.error-text", null, error) : null,
    earlier.length ? h("p.hint", null, `Tried before: ${earlier.join(", ")}`) : null,
  );
}
