// All generations, live.

import { h } from "../dom.js";
import { progressRow } from "../entity.js";
import { count, plural } from "../format.js";
import { ModelLabels } from "../judging/models.js";
import { judgingHead, narrowing } from "../judging/tabs.js";
import { column, liveList } from "../live_list.js";
import { badge, empty, FINAL } from "../parts.js";

export async function open(main, { query, signal, fail }) {
  const content = h("div");
  const labels = new ModelLabels(signal);
  const where = { dataset_id: query.get("dataset_id"), job_id: query.get("job_id") };
  main.append(...judgingHead("generations", newButton()), ...[narrowing("generations", query)].filter(Boolean), content);
  await liveList(content, {
    what: "generations",
    query: where,
    head: "Generation",
    columns: [
      column("Status", ({ status }) => status, badge),
      column("Models", ({ requested }) => requested.models, (models) => models.map((model) => h("div", null, labels.link(model)))),
      column("Answers", answersOf, answersCell, { kind: "progress" }),
    ],
    nothing: () => nothing(where),
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

function answersOf({ status, num_done: done, num_answers: number, num_failed: failed, error }) {
  return { status, done, number, failed, error };
}

function answersCell({ status, done, number, failed, error }) {
  if (error) return h("div.error-text", null, error);
  const without = failed ? h("div.hint", null, `${count(failed)} without an answer`) : null;
  if (FINAL.has(status)) return [plural(number, "answer"), without];
  return [progressRow("Answers", done, number), without];
}
