// What forms offer to choose from: datasets and models by their names, and what stands in their place where there are none.

import { get, path } from "../api.js";
import { h } from "../dom.js";
import { parameters, plural } from "../format.js";
import { empty } from "../parts.js";

const ROW_WORDS = { preference: "pair", unpaired: "single response", demonstration: "demonstration", responses: "response" };

export function noModel() {
  return empty(
    "No base model yet",
    "Jobs start from base models that the operator has pulled: run `preftune models pull smollm2-135m-instruct` where the service runs, or put a model's folder into its models directory.",
    h("button", { type: "button", onclick: () => location.reload() }, "Look again"),
  );
}

export function noData() {
  return empty(
    "No preference pairs yet",
    "A job learns from a file of preference pairs, of single responses marked good or bad, or of demonstrations. Upload one first; its report says what is in it.",
    h("a.button.primary", { href: "#/datasets" }, "Upload data"),
  );
}

/** The list holds the newest datasets; those that are `named` come along however old they are, by that name. Only ready ones. */
export async function withNamed(listed, named, signal) {
  const missing = [...new Set(named)].filter((id) => id && !listed.some((dataset) => dataset.id === id));
  const found = await Promise.all(missing.map((id) => find(id, signal)));
  return [...found.filter(Boolean), ...listed].filter(({ status }) => status === "ready");
}

/** A dataset by its id, or `id@version`; null where it is not there. */
async function find(id, signal) {
  try {
    const dataset = await get(path("datasets", id), { signal });
    const [, version] = id.split("@");
    return { ...dataset, id, name: version ? `${dataset.name}, version ${version}` : dataset.name };
  } catch {
    return null;
  }
}

export function datasetText({ name, kind, num_accepted: rows }) {
  return `${name} · ${plural(rows, ROW_WORDS[kind])}`;
}

export function modelText({ name, kind, num_parameters: size, job_name: title }) {
  const label = kind === "tuned" ? `${title ?? name} · tuned here` : name;
  return `${label} · ${parameters(size)} parameters`;
}
