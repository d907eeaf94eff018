// What rounds will do, before anything is made.

import { h } from "../dom.js";
import { count, percent, plural } from "../format.js";
import { card, notice, tableRow } from "../parts.js";
import { STAGES } from "./words.js";

/** Standard errors on each side of a share that hold 95 %; a share near a half has 0.5 / √n. */
const Z_95 = 1.96;

export function previewCard(preview, request) {
  const { before, first_round: first, later_rounds: later, num_prompts: prompts, num_answers: answers, num_held_out: held, max_rows: most, judgements } = preview;
  const rows = [
    before.length ? ["First", stages(before)] : null,
    [later.length ? "Round 1" : "The round", stages(first)],
    later.length ? [most.length > 2 ? `Rounds 2 to ${most.length}` : "Round 2", stages(later)] : null,
    ["To answer", `${count(answers)} to ${plural(prompts, "prompt")}, in each round`],
    ...judgements.map(judged),
    ["To learn from", rowsText(most)],
    ["A win counts", `from a win rate of about ${percent(Math.min(1, 0.5 + (Z_95 * 0.5) / Math.sqrt(held)), 0)} on ${plural(held, "held-out prompt")}`],
    ["End", request.stop_early === false ? `after ${plural(most.length, "round")}` : `after ${plural(most.length, "round")}, or once one is no better`],
  ];
  const short = judgements.filter(({ num_questions: asked, max_requests: bound }) => asked !== null && asked > bound);
  return card(
    "What the rounds will do",
    short.length ? notice("warning", h("p", null, "The language model may be asked less often than there are questions: pairs beyond have no verdict.")) : null,
    h("table.tight", null, h("tbody", null, rows.filter(Boolean).map((cells) => tableRow(...cells)))),
  );
}

function stages(names) {
  return names.map((name) => STAGES[name] ?? name).join(" → ");
}

function judged({ stage, num_pairs: pairs, num_questions: asked, max_requests: bound }) {
  const cost = asked === null ? "" : `; ${plural(asked, "question")} to the language model, ${plural(bound, "request")} at most`;
  return [STAGES[stage], `${plural(pairs, "pair")} at most${cost}`];
}

function rowsText(most) {
  const isEqual = most.every((number) => number === most[0]);
  return isEqual ? `${plural(most[0], "row")} at most, in each round` : `${most.map(count).join(", ")} rows at most`;
}
