// How often other judges say the same of the same pairs.

import { get, path } from "../api.js";
import { h } from "../dom.js";
import { count, percent } from "../format.js";
import { card, table, tableRow } from "../parts.js";
import { term } from "../words.js";
import { intervalBar } from "./interval.js";
import { judgeName, rootOf } from "./words.js";

const MAX_OTHERS = 10;

/** The card, once the others' verdicts are compared; nothing where no other judgement has these pairs. */
export async function agreementCard(judgement, signal) {
  const query = { dataset_id: rootOf(judgement.source), limit: 100 };
  const { data, next_cursor: more } = await get("/judgements", { query, signal });
  const others = data.filter(({ id, num_judged: judged }) => id !== judgement.id && judged > 0);
  const compare = (other) => get(`${path("judgements", judgement.id)}/agreement`, { query: { against: other.id }, signal });
  const shown = others.slice(0, MAX_OTHERS);
  const found = await Promise.all(shown.map(compare));
  const rows = shown.map((other, place) => [other, found[place]]).filter(([, { num_pairs: pairs }]) => pairs > 0);
  if (!rows.length) return null;
  const left = others.length - shown.length;
  return card(
    "Agreement with other judges",
    table(
      ["Judge", "Same verdict", "0 to 100 %", term("kappa", "Kappa"), "Pairs of both"],
      rows.map(([other, same]) =>
        tableRow(
          [h("a", { href: `#${path("judgements", other.id)}` }, other.name ?? judgeName(other.requested.judge)), other.name ? h("div.hint", null, judgeName(other.requested.judge)) : null],
          [h("strong", null, percent(same.value)), h("div.hint", null, `${percent(same.low, 0)} to ${percent(same.high, 0)}`)],
          intervalBar(same),
          same.kappa === null ? "–" : same.kappa.toFixed(2),
          count(same.num_pairs),
        ),
      ),
    ),
    left || more ? h("p.hint", null, `The newest ${count(shown.length)} judgements of the dataset are compared.`) : null,
  );
}
