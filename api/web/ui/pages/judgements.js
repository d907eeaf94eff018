// All judgements, live.

import { path } from "../api.js";
import { h, Region } from "../dom.js";
import { ago, count, plural } from "../format.js";
import { shareCell } from "../judging/interval.js";
import { ModelLabels } from "../judging/models.js";
import { judgingHead, narrowing } from "../judging/tabs.js";
import { judgeName } from "../judging/words.js";
import { liveList } from "../live_list.js";
import { badge, bar, empty, FINAL } from "../parts.js";
import { term } from "../words.js";

const HEADS = ["Judgement", "Status", "Models", term("win rate", "Win rate"), "Pairs", "Created"];

export async function open(main, { query, signal, fail }) {
  const content = h("div");
  const labels = new ModelLabels(signal);
  const where = { dataset_id: query.get("dataset_id"), job_id: query.get("job_id") };
  main.append(...judgingHead("judgements", newButton(where)), ...[narrowing("judgements", query)].filter(Boolean), content);
  await liveList(content, {
    address: "/judgements",
    query: where,
    heads: HEADS,
    makeRow: (judgement) => makeRow(judgement, labels),
    nothing: () => nothing(where),
    what: "judgements",
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

function makeRow(judgement, labels) {
  const status = new Region("td", { "data-label": "Status" }, (word) => badge(word));
  const rate = new Region("td", { "data-label": "Win rate" }, shareCell);
  const pairs = new Region("td", { class: "progress", "data-label": "Pairs" }, pairsCell);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const { id, name, models, requested } = judgement;
  const judge = { ...requested.judge, job_id: requested.judge.job_id ? labels.of(requested.judge.job_id) : null };
  const element = h(
    "tr",
    null,
    h("td.name", null, h("a", { href: `#${path("judgements", id)}` }, name ?? id), h("div.muted", null, judgeName(judge))),
    status.element,
    h("td", { "data-label": "Models" }, labels.link(models[0]), h("div.hint", null, "against ", labels.link(models[1]))),
    rate.element,
    pairs.element,
    created.element,
  );
  const update = (now) => {
    status.show(now.status);
    rate.show(now.win_rate);
    pairs.show({ status: now.status, judged: now.num_judged, number: now.num_pairs, failed: now.num_failed, error: now.error });
    created.show(ago(now.created_at));
  };
  return { element, update };
}

function pairsCell({ status, judged, number, failed, error }) {
  if (error) return h("div.error-text", null, error);
  const without = failed ? h("div.hint", null, `${count(failed)} without a verdict`) : null;
  if (FINAL.has(status)) return [plural(number, "pair"), without];
  return [h("div.bar-row", null, bar(number ? judged / number : 0, "Pairs"), h("span.number", null, `${count(judged)}/${count(number)}`)), without];
}
