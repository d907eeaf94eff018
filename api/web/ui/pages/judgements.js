// All judgements, live.

import { h } from "../dom.js";
import { progressRow } from "../entity.js";
import { count, plural } from "../format.js";
import { shareCell } from "../judging/interval.js";
import { ModelLabels } from "../judging/models.js";
import { judgingHead, narrowing } from "../judging/tabs.js";
import { judgeName } from "../judging/words.js";
import { column, liveList } from "../live_list.js";
import { badge, empty, FINAL } from "../parts.js";
import { term } from "../words.js";

export async function open(main, { query, signal, fail }) {
  const content = h("div");
  const labels = new ModelLabels(signal);
  const where = { dataset_id: query.get("dataset_id"), job_id: query.get("job_id") };
  main.append(...judgingHead("judgements", newButton(where)), ...[narrowing("judgements", query)].filter(Boolean), content);
  await liveList(content, {
    what: "judgements",
    query: where,
    head: "Judgement",
    under: ({ requested: { judge } }) => h("div.muted", null, judgeName({ ...judge, job_id: judge.job_id ? labels.of(judge.job_id) : null })),
    columns: [
      column("Status", ({ status }) => status, badge),
      column("Models", ({ models }) => models, ([first, second]) => [labels.link(first), h("div.hint", null, "against ", labels.link(second))]),
      column(term("win rate", "Win rate"), (judgement) => judgement.win_rate, shareCell, { label: "Win rate" }),
      column("Pairs", pairsOf, pairsCell, { kind: "progress" }),
    ],
    nothing: () => nothing(where),
    prepare: (items) => labels.learn(items.flatMap(({ models, requested }) => [...models, requested.judge.job_id ?? ""])),
    signal,
    fail,
  });
}

function newButton({ dataset_id: dataset }) {
  return h("a.button.primary", { href: dataset ? `#/judgements/new?dataset_id=${dataset}` : "#/judgements/new" }, "New judgement");
}

function nothing(where) {
  if (where.dataset_id || where.job_id)
    return empty("No such judgements", "None is of this dataset or job.", h("a.button", { href: "#/judgements" }, "Show all"), newButton(where));
  return empty(
    "No judgements yet",
    "A judge says which of two answers is better, for every pair of a dataset: a rule, a job's rewards, a language model, or people. That gives a win rate with its interval, and a dataset of pairs.",
    newButton(where),
  );
}

function pairsOf({ status, num_judged: judged, num_pairs: number, num_failed: failed, error }) {
  return { status, judged, number, failed, error };
}

function pairsCell({ status, judged, number, failed, error }) {
  if (error) return h("div.error-text", null, error);
  const without = failed ? h("div.hint", null, `${count(failed)} without a verdict`) : null;
  if (FINAL.has(status)) return [plural(number, "pair"), without];
  return [progressRow("Pairs", judged, number), without];
}
