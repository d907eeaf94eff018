// The form of a judgement: pairs of a dataset, and who judges them; several models against one are several judgements.

import { get, listAll, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { field, number, postingForm, read, select } from "../form/plain.js";
import { plural } from "../format.js";
import { JudgeFields } from "../judging/judge_fields.js";
import { ModelLabels } from "../judging/models.js";
import { card, empty, errorBox, loading, notice } from "../parts.js";

const KINDS = ["responses", "preference"];
/** Prompts from which the models of a file are told that says nothing of itself. */
const LOOKED_AT = 100;

export async function open(main, { query, signal }) {
  main.append(loading("the form"));
  const heading = h("div.title-row", null, h("h1", { tabindex: "-1" }, "New judgement"));
  const given = await givenBy(query, signal);
  const [datasets, jobs, arenas] = await Promise.all([
    listAll("/datasets", { signal, pages: 3 }),
    listAll("/jobs", { query: { status: "succeeded" }, signal, pages: 2 }),
    listAll("/arenas", { signal, pages: 1 }),
  ]);
  const usable = datasets.filter(({ status, kind }) => status === "ready" && KINDS.includes(kind));
  if (!usable.length) {
    const text = "A judgement is of answers of models, or of preference pairs. Have models answer prompts first, or upload a file.";
    fill(main, heading, empty("Nothing to judge yet", text, h("a.button.primary", { href: "#/generations/new" }, "New generation"), h("a.button", { href: "#/datasets" }, "Upload a file")));
    return;
  }
  const form = new JudgementForm(given, { datasets: usable, jobs, arenas, signal });
  fill(main, heading, form.element);
  await form.start();
}

/** What the address asks for: a copy of a judgement, answers of a job, or single values. */
async function givenBy(query, signal) {
  const from = query.get("from");
  if (from) {
    const { requested, models, source, name } = await get(path("judgements", from), { signal });
    return { ...requested, dataset_id: source, first: [models[0]], second: models[1], name };
  }
  const job = query.get("reward_job");
  const given = { judge: job ? { kind: "reward", job_id: job } : {}, dataset_id: query.get("dataset_id"), first: query.getAll("model"), second: query.get("against") };
  const answered = query.get("job");
  if (!answered || given.dataset_id) return given;
  const { data } = await get("/generations", { query: { job_id: answered, limit: 20 }, signal });
  return { ...given, dataset_id: data.find(({ dataset_id: id }) => id)?.dataset_id ?? null };
}

class JudgementForm {
  constructor(given, { datasets, jobs, arenas, signal }) {
    this.given = given;
    this.datasets = datasets;
    this.signal = signal;
    this.labels = new ModelLabels(signal);
    const options = datasets.map(({ id, name, kind, num_accepted: rows }) => [id, `${name}, ${kind}, ${plural(rows, "row")}`]);
    const asked = given.dataset_id;
    if (asked && !datasets.some(({ id }) => id === asked)) options.unshift([asked, asked]);
    this.dataset = select("j-dataset", options, asked ?? undefined);
    this.dataset.addEventListener("change", () => this.#showModels());
    this.models = h("div", { "aria-live": "polite" });
    const rewarding = jobs.filter(({ spec }) => spec.method !== "supervised").map(({ id, name }) => [id, name ?? id]);
    this.judge = new JudgeFields(given.judge, rewarding, arenas.map(({ id, name }) => [id, name ?? id]));
    this.numPairs = number("j-num-pairs", given.num_pairs ?? "", { min: "1", max: "5000", placeholder: "all, up to 5,000" });
    this.seed = number("j-seed", given.seed ?? 0, { min: "0", required: true });
    this.name = h("input", { id: "j-name", maxlength: "200", autocomplete: "off", value: given.name ?? "" });
    const fields = [
      card("Answers", field("Dataset", this.dataset, "Answers of models, or preference pairs."), this.models),
      card("Judge", this.judge.element),
      card("Pairs", h("div.two", null, field("Pairs at most", this.numPairs), field("Seed of the draw", this.seed), field("Name", this.name, "Optional; the dataset has it too."))),
    ];
    this.element = postingForm("New judgement", { fields, button: "Start", controls: () => this.#controls(), send: () => this.#send() });
  }

  start() {
    return this.#showModels();
  }

  /** Offer the models that the dataset has answers of: those to judge, and the one that they are judged against. */
  async #showModels() {
    const id = this.dataset.value;
    this.first = this.second = null;
    fill(this.models, loading("models"));
    try {
      const dataset = this.datasets.find((item) => item.id === id) ?? (await get(path("datasets", id), { signal: this.signal }));
      const names = dataset.kind === "responses" ? await this.#modelsOf(dataset) : null;
      await this.labels.learn(names ?? []);
      if (id === this.dataset.value) this.#offer(names);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.models, errorBox(error, () => this.#showModels()));
    }
  }

  async #modelsOf(dataset) {
    const known = dataset.made_from?.models;
    if (known) return known;
    const { data } = await get(`${path("datasets", dataset.id)}/answers`, { query: { limit: LOOKED_AT }, signal: this.signal });
    return [...new Set(data.flatMap(({ answers }) => answers.map(({ model }) => model)))];
  }

  #offer(names) {
    if (names === null) {
      fill(this.models, h("p.hint", null, "Chosen against rejected: does the judge agree with the file?"));
      return;
    }
    if (names.length === 1) {
      fill(this.models, h("p.hint", null, `All answers are of ${this.labels.of(names[0])}: it is compared with itself, which should give 50 %.`));
      return;
    }
    const against = names.includes(this.given.second) ? this.given.second : names[0];
    this.second = select("j-second", names.map((name) => [name, this.labels.of(name)]), against);
    const wanted = this.given.first.filter((name) => names.includes(name));
    this.first = names.map((name) => {
      const isChosen = wanted.length ? wanted.includes(name) : name !== against;
      return { name, control: h("input", { type: "checkbox", id: `j-first-${names.indexOf(name)}`, checked: isChosen }) };
    });
    const note = h("p.hint", { role: "status" });
    const update = () => {
      const number = this.#firsts().length;
      fill(note, number > 1 ? `${number} judgements, one for each model.` : number ? "" : "Choose at least one model.");
    };
    const boxes = this.first.map(({ name, control }) => h("label.check", null, control, h("span", null, this.labels.of(name))));
    const choice = h("div.stack", { onchange: update }, h("fieldset", null, h("legend", null, "Models to judge"), h("div.choices", null, boxes)), field("Against", this.second));
    fill(this.models, choice, note);
    update();
  }

  #firsts() {
    return this.first.filter(({ control }) => control.checked).map(({ name }) => name);
  }

  #controls() {
    const own = { "/dataset_id": this.dataset, "/num_pairs": this.numPairs, "/seed": this.seed, "/name": this.name };
    if (this.second) own["/models"] = this.second;
    return new Map([...Object.entries(own), ...this.judge.controls()]);
  }

  /** One judgement for each model; those that were started before one was refused stay, and are told. */
  async #send() {
    const firsts = this.first ? this.#firsts() : [null];
    if (!firsts.length) throw Object.assign(new Error("Choose at least one model to judge."), { title: "No model is chosen" });
    const name = this.name.value.trim();
    const body = { dataset_id: this.dataset.value, judge: this.judge.value(), num_pairs: read(this.numPairs), seed: read(this.seed) };
    const made = [];
    for (const first of firsts) {
      const own = first === null ? {} : { models: [first, this.second.value] };
      const title = name && firsts.length > 1 ? `${name}: ${this.labels.of(first)}`.slice(0, 255) : name || null;
      try {
        made.push(await post("/judgements", { ...body, ...own, name: title }, { creates: true }));
      } catch (error) {
        if (made.length) this.models.append(notice("warning", `${plural(made.length, "judgement")} of ${firsts.length} were started: `, h("a", { href: `#/judgements?dataset_id=${body.dataset_id}` }, "show them")));
        throw error;
      }
    }
    location.hash = made.length === 1 ? `#${path("judgements", made[0].id)}` : `#/judgements?dataset_id=${encodeURIComponent(body.dataset_id)}`;
  }
}
