// The playground: one conversation with up to four models side by side.

import { get, listAll, path } from "../api.js";
import { fill, h } from "../dom.js";
import { modelsOf } from "../judging/models.js";
import { act, empty, loading, toast } from "../parts.js";
import { Column } from "../play/column.js";

const MAX_MODELS = 4;
const SETTINGS = [
  ["temperature", "Temperature", { min: "0", max: "2", step: "0.1" }, "0.7"],
  ["top_p", "Top p", { min: "0.01", max: "1", step: "0.01" }, "1"],
  ["max_tokens", "Most tokens", { min: "1", max: "4096", step: "1" }, "256"],
  ["seed", "Seed", { min: "0", step: "1", placeholder: "random" }, ""],
];

export async function open(main, { query, signal }) {
  main.append(loading("the playground"));
  const jobId = query.get("job");
  const [models, datasets, job] = await Promise.all([
    listAll("/models", { signal }),
    listAll("/datasets", { signal }),
    jobId ? get(path("jobs", jobId), { signal }) : null,
  ]);
  fill(main, h("div.title-row", null, h("h1", { tabindex: "-1" }, "Playground")));
  if (!models.length) {
    main.append(empty("No model yet", "Models answer here once the operator has pulled a base model, or a job has published a policy."));
    return;
  }
  const page = new Playground({ models, datasets: datasets.filter(({ status }) => status === "ready"), signal });
  main.append(page.element);
  const wanted = query.getAll("model");
  for (const name of wanted.length ? wanted : job ? modelsOf(job) : [models[0].name]) page.add(name);
  page.take(query);
}

class Playground {
  constructor({ models, datasets, signal }) {
    this.signal = signal;
    this.labels = new Map(models.map((model) => [model.name, labelOf(model)]));
    this.columns = [];
    this.system = h("textarea", { id: "play-system", rows: "1" });
    this.prompt = h("textarea", { id: "play-prompt", rows: "3", required: true });
    this.fields = SETTINGS.map(([name, label, bounds, value]) => ({
      name,
      label,
      control: h("input", { type: "number", id: `play-${name}`, value, ...bounds }),
    }));
    this.picker = h("select", { id: "play-model" }, models.map((model) => h("option", { value: model.name }, labelOf(model))));
    this.holder = h("div.play-columns");
    this.sendButton = h("button.primary", { type: "submit" }, "Send to all");
    this.element = h("div.stack", null, this.#form(datasets), this.holder);
  }

  #form(datasets) {
    const field = (control, label) => h("div.field", null, h("label", { for: control.id }, label), control);
    const add = h("button", { type: "button", onclick: () => this.add(this.picker.value) }, "Add model");
    const fresh = h("button", { type: "button", onclick: () => this.columns.forEach((column) => column.clear()) }, "New conversation");
    const link = h("button.quiet", { type: "button", onclick: () => act(link, () => this.#copyLink()) }, "Copy link");
    return h(
      "form.card.stack",
      { "aria-label": "Question", onsubmit: (event) => this.#submit(event) },
      h("div.two", null, field(this.picker, "Model"), h("div.actions", null, add)),
      field(this.system, "System prompt"),
      field(this.prompt, "Prompt"),
      datasets.length ? promptsOf(datasets, (prompt) => this.#takePrompt(prompt), this.signal) : null,
      h("div.play-settings", null, this.fields.map(({ control, label }) => field(control, label))),
      h("div.actions", null, this.sendButton, fresh, link),
    );
  }

  add(name) {
    if (this.columns.length >= MAX_MODELS) {
      toast(`${MAX_MODELS} models fit side by side; remove one first.`, "error");
      return;
    }
    if (this.columns.some((column) => column.model === name)) return;
    const column = new Column(name, this.#labelFor(name), { onRemove: (gone) => this.#remove(gone) });
    this.columns.push(column);
    this.holder.append(column.element);
  }

  #labelFor(name) {
    if (name.endsWith("@sft")) return `SFT policy of ${this.#labelFor(name.slice(0, -4))}`;
    return this.labels.get(name) ?? name;
  }

  /** Values of an address. */
  take(query) {
    this.system.value = query.get("system") ?? "";
    this.prompt.value = query.get("prompt") ?? "";
    for (const { name, control } of this.fields) if (query.has(name)) control.value = query.get(name);
  }

  #remove(column) {
    column.close();
    column.element.remove();
    this.columns = this.columns.filter((other) => other !== column);
  }

  #takePrompt(prompt) {
    const messages = typeof prompt === "string" ? [{ role: "user", content: prompt }] : prompt;
    this.system.value = messages.find(({ role }) => role === "system")?.content ?? "";
    this.prompt.value = messages.findLast(({ role }) => role === "user")?.content ?? "";
  }

  async #submit(event) {
    event.preventDefault();
    if (!this.columns.length) {
      toast("Add a model first.", "error");
      return;
    }
    if (this.columns.some((column) => column.isBusy)) {
      toast("Wait for the answers, or stop them.", "error");
      return;
    }
    history.replaceState(history.state, "", this.#address());
    const sampling = {};
    for (const { name, control } of this.fields) if (control.value !== "") sampling[name] = Number(control.value);
    const before = this.system.value ? [{ role: "system", content: this.system.value }] : [];
    const asked = this.columns.map((column) =>
      column.ask(before, this.prompt.value, sampling, { signal: this.signal, isTuned: /^(job_|ft:)/.test(column.model) }),
    );
    this.sendButton.disabled = true;
    await Promise.all(asked);
    this.sendButton.disabled = false;
  }

  #address() {
    const values = [
      ...this.columns.map(({ model }) => ["model", model]),
      ["system", this.system.value],
      ["prompt", this.prompt.value],
      ...this.fields.map(({ name, control }) => [name, control.value]),
    ];
    return `#/play?${new URLSearchParams(values.filter(([, value]) => value !== ""))}`;
  }

  async #copyLink() {
    history.replaceState(history.state, "", this.#address());
    await navigator.clipboard.writeText(location.href);
    toast("Copied.");
  }
}

/** A prompt of a dataset, a random one each time. */
function promptsOf(datasets, take, signal) {
  const select = h("select", { id: "play-dataset" }, datasets.map(({ id, name }) => h("option", { value: id }, name)));
  const button = h("button", { type: "button" }, "Take a prompt");
  const pick = async () => {
    const { num_rows: numRows } = datasets.find(({ id }) => id === select.value);
    const line = 1 + Math.floor(Math.random() * numRows);
    const { data } = await get(path("datasets", select.value, "rows"), { query: { line, limit: 1 }, signal });
    const rows = data.length ? data : (await get(path("datasets", select.value, "rows"), { query: { limit: 1 }, signal })).data;
    take(rows[0].prompt);
  };
  button.addEventListener("click", () => act(button, pick));
  return h("div.two", null, h("div.field", null, h("label", { for: select.id }, "Prompts of a dataset"), select), h("div.actions", null, button));
}

function labelOf(model) {
  return model.kind === "tuned" ? `${model.job_name ?? model.name} (from ${model.source})` : model.name;
}
