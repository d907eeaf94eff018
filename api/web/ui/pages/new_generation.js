// The form of a generation: which models answer which prompts, and how.

import { get, listAll, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { field, number, postingForm, read, select } from "../form/plain.js";
import { plural } from "../format.js";
import { modelFields } from "../judging/model_fields.js";
import { ModelLabels, modelsOf } from "../judging/models.js";
import { card, loading } from "../parts.js";

const MAX_MODELS = 8;
const SOURCES = [
  ["held_out_of", "Held-out rows of a job"],
  ["dataset_id", "A dataset"],
  ["prompts", "Prompts typed here"],
];

export async function open(main, { query, signal }) {
  main.append(loading("the form"));
  const given = await givenBy(query, signal);
  const [models, datasets, labels] = await Promise.all([
    listAll("/models", { signal, pages: 2 }),
    listAll("/datasets", { signal, pages: 2 }),
    new ModelLabels(signal).learn(given.models),
  ]);
  const ready = datasets.filter(({ status }) => status === "ready");
  const form = new GenerationForm(given, knownModels(models, given.models, labels), ready, models);
  fill(main, h("div.title-row", null, h("h1", { tabindex: "-1" }, "New generation")), form.element);
}

/** What the address asks for: a copy of a generation, models of a job, or single values. */
async function givenBy(query, signal) {
  const from = query.get("from");
  if (from) {
    const { requested, name } = await get(path("generations", from), { signal });
    return { ...requested, ...requested.sampling, sampling_seed: requested.sampling.seed, name };
  }
  const given = { models: query.getAll("model"), dataset_id: query.get("dataset_id"), held_out_of: null };
  const id = query.get("job");
  if (!id) return given;
  const job = await get(path("jobs", id), { signal });
  const names = job.artifact ? modelsOf(job) : [job.spec.base_model];
  if (query.has("checkpoints") || !job.artifact) names.splice(1, names.length, ...(await checkpointsOf(job, signal)), ...(job.artifact ? [job.id] : []));
  return { ...given, models: names.slice(-MAX_MODELS), held_out_of: id };
}

/** Names of the policies of a job's kept checkpoints, the first step first; only those of its last stage. */
async function checkpointsOf(job, signal) {
  const { data } = await get(path("jobs", job.id, "checkpoints"), { signal });
  const last = job.stages.findLast(({ name }) => ["sft", "dpo"].includes(name))?.name;
  return data
    .filter(({ stage, archive_url: url }) => url && stage === last)
    .map(({ id }) => `${job.id}@${id}`)
    .reverse()
    .slice(2 - MAX_MODELS);
}

function knownModels(models, names, labels) {
  const known = models.map(({ name, kind, job_name: title, source }) => ({
    name,
    label: kind === "tuned" ? `${title ?? name} (from ${source})` : name,
  }));
  const others = names.filter((name) => !known.some((model) => model.name === name));
  return [...known, ...others.map((name) => ({ name, label: labels.of(name) }))];
}

class GenerationForm {
  constructor(given, known, datasets, models) {
    this.datasets = datasets;
    this.models = modelFields("g-model", known, given.models, MAX_MODELS);
    const tuned = models.filter(({ kind }) => kind === "tuned").map(({ job_id: id, job_name: name }) => [id, name ?? id]);
    if (given.held_out_of && !tuned.some(([id]) => id === given.held_out_of)) tuned.unshift([given.held_out_of, given.held_out_of]);
    const offered = SOURCES.filter(([name]) => (name === "held_out_of" ? tuned.length : name === "dataset_id" ? datasets.length : true));
    this.source = select("g-source", offered, given.dataset_id ? "dataset_id" : given.held_out_of ? "held_out_of" : "dataset_id");
    this.job = select("g-job", tuned, given.held_out_of ?? undefined);
    this.dataset = select("g-dataset", datasets.map(({ id, name, num_accepted: rows }) => [id, `${name}, ${plural(rows, "row")}`]), given.dataset_id ?? undefined);
    this.prompts = h("textarea", { id: "g-prompts", rows: "5" });
    this.numPrompts = number("g-num-prompts", given.num_prompts ?? "", { min: "1", max: "10000", placeholder: "all" });
    this.samples = number("g-samples", given.num_samples ?? 1, { min: "1", max: "64", required: true });
    this.tokens = number("g-tokens", given.max_tokens ?? 256, { min: "1", max: "8192", required: true });
    this.temperature = number("g-temperature", given.temperature ?? 1, { min: "0", max: "2", step: "0.05", required: true });
    this.topP = number("g-top-p", given.top_p ?? 1, { min: "0.01", max: "1", step: "0.01", required: true });
    this.seed = number("g-seed", given.sampling_seed ?? 0, { min: "0", required: true });
    this.drawSeed = number("g-draw-seed", given.seed ?? 0, { min: "0", required: true });
    this.name = h("input", { id: "g-name", maxlength: "255", autocomplete: "off", value: given.name ?? "" });
    this.size = h("p.hint", { role: "status" });
    this.element = this.#build();
    this.element.addEventListener("input", () => this.#update());
    this.element.addEventListener("click", () => this.#update());
    this.#update();
  }

  #build() {
    this.sources = {
      held_out_of: field("Job", this.job, "The rows that it held out of training, as its trainer split them."),
      dataset_id: field("Dataset", this.dataset),
      prompts: field("Prompts", this.prompts, "One a line."),
    };
    const fields = [
      card(null, this.models.element),
      card(
        "Prompts",
        h("div.two", null, field("Where they are from", this.source), Object.values(this.sources)),
        h("div.two", null, field("Different prompts at most", this.numPrompts), field("Seed of the draw", this.drawSeed)),
      ),
      card(
        "Answers",
        h("div.two", null, field("Answers of each model to each prompt", this.samples), field("Longest answer, in tokens", this.tokens)),
        h("div.play-settings", null, field("Temperature", this.temperature), field("Top p", this.topP), field("Seed", this.seed)),
        field("Name", this.name, "Optional; the dataset has it too."),
        this.size,
      ),
    ];
    return postingForm("New generation", { fields, button: "Start", controls: () => this.#controls(), send: () => this.#send() });
  }

  #controls() {
    const own = {
      "/dataset_id": this.dataset,
      "/held_out_of": this.job,
      "/prompts": this.prompts,
      "/num_prompts": this.numPrompts,
      "/num_samples": this.samples,
      "/sampling/max_tokens": this.tokens,
      "/sampling/temperature": this.temperature,
      "/sampling/top_p": this.topP,
      "/sampling/seed": this.seed,
      "/seed": this.drawSeed,
      "/name": this.name,
    };
    return new Map([...this.models.controls(), ...Object.entries(own)]);
  }

  #update() {
    for (const [name, element] of Object.entries(this.sources)) element.hidden = name !== this.source.value;
    const there = this.#numPrompts();
    const most = Math.min(...[there, read(this.numPrompts)].filter((value) => value !== null));
    const models = this.models.names().length;
    const samples = read(this.samples) ?? 0;
    const whole = Number.isFinite(most) ? ` × ${plural(most, "prompt")} at most` : "";
    const product = Number.isFinite(most) ? ` = ${plural(models * most * samples, "answer")}` : " for each prompt";
    fill(this.size, `${plural(models, "model")}${whole} × ${plural(samples, "sample")}${product}.`);
  }

  /** Prompts that there are at most; null where only the service knows. */
  #numPrompts() {
    if (this.source.value === "prompts") return this.#typed().length;
    if (this.source.value === "held_out_of") return null;
    return this.datasets.find(({ id }) => id === this.dataset.value)?.num_accepted ?? null;
  }

  #typed() {
    return this.prompts.value.split("\n").map((text) => text.trim()).filter(Boolean);
  }

  async #send() {
    const from = this.source.value;
    const value = { held_out_of: this.job.value, dataset_id: this.dataset.value, prompts: this.#typed() }[from];
    const made = await post(
      "/generations",
      {
        models: this.models.names(),
        [from]: value,
        num_prompts: read(this.numPrompts),
        num_samples: read(this.samples),
        sampling: { max_tokens: read(this.tokens), temperature: read(this.temperature), top_p: read(this.topP), seed: read(this.seed) },
        seed: read(this.drawSeed),
        name: this.name.value.trim() || null,
      },
      { creates: true },
    );
    location.hash = `#${path("generations", made.id)}`;
  }
}
