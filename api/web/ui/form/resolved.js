// What a job will do, in the numbers that the service has resolved.

import { h } from "../dom.js";
import { count, plural, setting } from "../format.js";
import { card } from "../parts.js";
import { splitOf } from "./data_warnings.js";

const LATER = "set by the worker";

export function resolvedCard(answer, request, variant) {
  const { spec } = answer;
  const rows = [];
  const add = (name, value, isAsked) =>
    rows.push(
      h(
        "tr",
        null,
        h("td", null, name),
        h(
          "td",
          null,
          value === "auto" ? h("span.auto", null, LATER) : setting(value),
          isAsked || value === "auto" ? null : h("span.auto", null, " auto"),
        ),
      ),
    );
  if (spec.beta !== undefined) add("Beta", spec.beta, request.beta !== undefined);
  for (const stage of ["sft", "dpo", "reward"]) {
    const values = spec[stage];
    if (values === undefined) continue;
    if (values === "skip") {
      rows.push(h("tr", null, h("td", null, "SFT"), h("td", null, "skipped")));
      continue;
    }
    const asked = typeof request[stage] === "object" ? request[stage] : {};
    const title = stage === "reward" ? "Reward" : stage.toUpperCase();
    for (const [key, value] of Object.entries(values))
      if (value !== null && typeof value !== "object") add(`${title} ${key.replaceAll("_", " ")}`, value, key in asked);
  }
  add("Precision", spec.precision, request.precision !== undefined);
  add("Micro-batch tokens", spec.micro_batch_tokens, false);
  return card(
    "What the job will do",
    h("p", null, summary(answer, variant)),
    h("table.tight.resolved", null, h("tbody", null, rows)),
  );
}

function summary({ spec, rows: seen, estimate }, { title, data }) {
  const one = spec.method === "supervised" ? "row" : spec.method !== "reward" && data === "unpaired" ? "response" : "pair";
  const [train, held] = splitOf(spec, seen, estimate);
  const steps = (stage) => stage.epochs * Math.ceil(train / stage.batch_size);
  const sft = () =>
    spec.sft === "skip"
      ? "No SFT. "
      : spec.sft.dataset_id
        ? "SFT on demonstrations, then "
        : `About ${plural(steps(spec.sft), "step")} of SFT on the chosen responses, then `;
  const dpo = () => `${sft()}about ${plural(steps(spec.dpo), "step")} of ${title}`;
  const whats = {
    supervised: () => `about ${plural(steps(spec.sft), "step")} of SFT`,
    reward: () => `about ${plural(steps(spec.reward), "step")} of a reward model`,
  };
  const what = (whats[spec.method] ?? dpo)();
  const weights = spec.lora
    ? `through a LoRA adapter of rank ${spec.lora.rank}`
    : `all ${count(spec.num_parameters)} weights`;
  const text = `${what} on ${plural(train, one)}${held ? `, with ${plural(held, one)} held out` : ""}, ${weights}.`;
  return text[0].toUpperCase() + text.slice(1);
}
