// All generations, live.

import { path } from "../api.js";
import { h, Region } from "../dom.js";
import { ago, count, plural } from "../format.js";
import { ModelLabels } from "../judging/models.js";
import { judgingHead, narrowing } from "../judging/tabs.js";
import { liveList } from "../live_list.js";
import { badge, bar, empty, FINAL } from "../parts.js";

const HEADS = ["Generation", "Status", "Models", "Answers", "Created"];

export async function open(main, { query, signal, fail }) {
  const content = h("div");
  const labels = new ModelLabels(signal);
  const where = { dataset_id: query.get("dataset_id"), job_id: query.get("job_id") };
  main.append(...judgingHead("generations", newButton()), ...[narrowing("generations", query)].filter(Boolean), content);
  await liveList(content, {
    address: "/generations",
    query: where,
    heads: HEADS,
    makeRow: (generation) => makeRow(generation, labels),
    nothing: () => nothing(where),
    what: "generations",
    prepare: (items) => labels.learn(items.flatMap(({ requested }) => requested.models)),
    signal,
    fail,
  });
}

function newButton() {
  return h("a.button.primary", { href: "#/generations/new" }, "New generation");
}

function nothing({ dataset_id: dataset, job_id: job }) {
  if (dataset || job) return empty("No such generations", "None is of this dataset or job.", h("a.button", { href: "#/generations" }, "Show all"));
  return empty(
    "No generations yet",
    "Models answer the prompts of a dataset; their answers become a dataset of responses, to be read side by side and judged.",
    newButton(),
  );
}

function makeRow(generation, labels) {
  const status = new Region("td", { "data-label": "Status" }, (word) => badge(word));
  const answers = new Region("td", { class: "progress", "data-label": "Answers" }, answersCell);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const { id, name, requested } = generation;
  const element = h(
    "tr",
    null,
    h("td.name", null, h("a", { href: `#${path("generations", id)}` }, name ?? id), name ? h("div.muted.mono", null, id) : null),
    status.element,
    h("td", { "data-label": "Models" }, requested.models.map((model) => h("div", null, labels.link(model)))),
    answers.element,
    created.element,
  );
  const update = (now) => {
    status.show(now.status);
    answers.show({ status: now.status, done: now.num_done, number: now.num_answers, failed: now.num_failed, error: now.error });
    created.show(ago(now.created_at));
  };
  return { element, update };
}

function answersCell({ status, done, number, failed, error }) {
  if (error) return h("div.error-text", null, error);
  const without = failed ? h("div.hint", null, `${count(failed)} without an answer`) : null;
  if (FINAL.has(status)) return [plural(number, "answer"), without];
  return [h("div.bar-row", null, bar(number ? done / number : 0, "Answers"), h("span.number", null, `${count(done)}/${count(number)}`)), without];
}
