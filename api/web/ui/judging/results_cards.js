// What a judgement came to: win rates with intervals, what the order of the answers does, and what went wrong.

import { h } from "../dom.js";
import { count, percent, plural } from "../format.js";
import { card, facts, notice, table, tableRow } from "../parts.js";
import { term } from "../words.js";
import { intervalBar } from "./interval.js";
import { FAULTS, shareText } from "./words.js";

/** Nobody is sure of a win rate over fewer prompts. */
const FEW_PROMPTS = 20;

/** In a sentence, who wins; nothing before there is a win rate. */
export function verdictNotice({ win_rate: rate, length_controlled: controlled, label_agreement: labels, num_prompts: prompts }, [first, second]) {
  if (!rate) return null;
  if (labels) {
    const text = `The judge says what the file says in ${shareText(labels)} of its pairs.`;
    return notice(labels.low > 0.5 ? "check" : "warning", h("strong", null, text), h("p", null, labels.low > 0.5 ? "Guessing would give 50 %, without ties." : "That is no more than guessing, or the pairs are too few to tell."));
  }
  const few = prompts < FEW_PROMPTS ? h("p", null, `Only ${plural(prompts, "prompt")}: more would make the interval smaller.`) : null;
  if (first === second) return notice(rate.low <= 0.5 && rate.high >= 0.5 ? "check" : "warning", h("strong", null, `Against itself the model wins ${shareText(rate)}; 50 % is expected`), few);
  const better = rate.low > 0.5 ? first : rate.high < 0.5 ? second : null;
  if (!better) return notice("info", h("strong", null, "No clear difference"), h("p", null, `${first} wins ${shareText(rate)}: chance alone may give that.`), few);
  const share = better === first ? rate : { value: 1 - rate.value, low: 1 - rate.high, high: 1 - rate.low };
  const isStill = controlled && (better === first ? controlled.low > 0.5 : controlled.high < 0.5);
  return notice(
    isStill ? "check" : "warning",
    h("strong", null, `${better} is better: it wins ${shareText(share)}`),
    isStill ? null : h("p", null, "Length alone may explain that: at equal length the two cannot be told apart."),
    few,
  );
}

/** Raw and at equal length, and agreement with the file. */
export function ratesCard({ win_rate: rate, length_controlled: controlled, label_agreement: labels, num_ties: ties, num_prompts: prompts }, names) {
  if (!rate) return null;
  const row = (name, share, more) =>
    tableRow([name, more ? h("div.hint", null, more) : null], [h("strong", null, percent(share.value)), h("div.hint", null, `${percent(share.low, 0)} to ${percent(share.high, 0)}`)], intervalBar(share));
  return card(
    `Win rate of ${names[0]}`,
    table(
      ["", ["Share, ", term("interval", "95 % interval")], "0 to 100 %"],
      [
        row(term("win rate", "Raw"), rate, `${plural(prompts, "prompt")}, ${plural(ties, "tie")}, each half`),
        row(term("length-controlled", "At equal length"), controlled, "by a regression on the lengths"),
        labels ? row("Agreement with the file", labels, [plural(labels.num_pairs, "pair"), kappaText(labels)]) : null,
      ].filter(Boolean),
    ),
    h("p.hint", null, `Share of pairs in which ${names[0]} is found better than ${names[1]}. The interval is over prompts, since answers to one prompt are alike.`),
  );
}

export function kappaText({ kappa }) {
  return kappa === null ? "" : [", ", term("kappa"), ` ${kappa.toFixed(2)}`];
}

/** Whether a language model minds the order in which it is shown the answers. */
export function positionCard(position) {
  if (!position) return null;
  const { num_pairs: pairs, num_consistent: alike, first_shown_share: first } = position;
  if (!pairs) return card(term("position bias", "Order of the answers"), h("p.muted", null, "No pair was judged in both orders."));
  // Each pair is asked for twice; were there no bias, the share of the first shown would stay within two standard errors.
  const leans = Math.abs(first - 0.5) > 1 / Math.sqrt(2 * pairs);
  return card(
    term("position bias", "Order of the answers"),
    facts([
      ["Judged in both orders", plural(pairs, "pair")],
      ["Same verdict in both", `${count(alike)} (${percent(alike / pairs, 0)}); the others count as ties`],
      ["Answer shown first preferred", `${percent(first)}; 50 % is no bias`],
    ]),
    leans ? notice("warning", h("p", null, `The judge prefers the answer that it is shown ${first > 0.5 ? "first" : "second"}. Both orders are asked for, so neither model gains by it.`)) : null,
  );
}

/** Faults by kind, those that a later try made good among them. */
export function faultsCard({ faults, num_failed: failed, num_pairs: pairs }) {
  const rows = Object.entries(faults).map(([kind, number]) => tableRow(FAULTS[kind]?.[0] ?? kind, count(number), FAULTS[kind]?.[1] ?? ""));
  if (!rows.length) return null;
  return card(
    "Faults",
    h("p.hint", null, failed ? `${count(failed)} of ${plural(pairs, "pair")} have no verdict and are not in the win rate; none is made up.` : "Each was made good by another try: every pair has its verdict."),
    table(["Fault", "Times", ""], rows),
  );
}
