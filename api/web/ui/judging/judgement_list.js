// Judgements as rows of a small table: who judged, whom, with which win rate.

import { path } from "../api.js";
import { h } from "../dom.js";
import { ago, count } from "../format.js";
import { badge, table, tableRow } from "../parts.js";
import { shareCell } from "./interval.js";
import { judgeName } from "./words.js";

/** The table of these judgements; `labels` are a `ModelLabels`. */
export function judgementTable(judgements, labels) {
  const row = (judgement) =>
    tableRow(
      [h("a", { href: `#${path("judgements", judgement.id)}` }, judgement.name ?? judgeName(judgement.requested.judge)), judgement.name ? h("div.hint", null, judgeName(judgement.requested.judge)) : null],
      [labels.of(judgement.models[0]), h("div.hint", null, `against ${labels.of(judgement.models[1])}`)],
      judgement.win_rate ? shareCell(judgement.win_rate) : [badge(judgement.status), h("div.hint", null, `${count(judgement.num_judged)} of ${count(judgement.num_pairs)}`)],
      h("span.muted", null, ago(judgement.created_at)),
    );
  return table(["Judgement", "Models", "Win rate", "Created"], judgements.map(row));
}
