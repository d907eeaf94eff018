// What a sweep varies: settings with their values, beside the form of the job that every member starts from.

import { fill, h, icon } from "../dom.js";
import { card } from "../parts.js";
import { pathName } from "./layout.js";
import { SETTINGS } from "./settings.js";

const OFTEN = ["/beta", "/variant", "/dpo/learning_rate", "/sft/learning_rate", "/lora/rank", "/seed", "/dpo/epochs", "/reward/learning_rate", "/dataset_id"];
const SINGLE = new Set(["integer", "number", "choice", "boolean"]);
const NAMED = new Set(["/variant", "/dataset_id", "/base_model"]);
const VARIED = SETTINGS.filter(({ pointer, kind }) => pointer !== "/method" && (SINGLE.has(kind) || NAMED.has(pointer)));
const METRICS = [
  ["", "The method's own (default)"],
  ["rewards/accuracies", "Accuracy"],
  ["rewards/margins", "Margin"],
  ["loss", "Loss"],
  ["mean_token_accuracy", "Token accuracy (supervised)"],
];
const STRATEGIES = [
  ["all", "All train to their end"],
  ["successive_halving", "The best go on (successive halving)"],
];
/** Numbers to draw from: "0.01 to 1", or evenly in the logarithm, "0.01 to 1 log". */
const RANGE = /^(\S+) to (\S+?)( log)?$/;

export class SweepFields {
  #rows = [];

  /** options: {pointer: [[value, text]]} of settings that take one of a list. */
  constructor(options, onChange) {
    this.options = options;
    this.list = h("div.stack");
    const add = h("button", { type: "button", onclick: () => this.#add() }, "Vary a setting");
    this.way = select("sweep-way", [["grid", "Every combination"], ["random", "Drawn at random"]]);
    this.number = numeric("sweep-number", "8");
    this.seed = numeric("sweep-seed", "0");
    this.metric = select("sweep-metric", METRICS);
    this.parallel = numeric("sweep-parallel", "4");
    this.strategy = select("sweep-strategy", STRATEGIES);
    /** Settings of successive halving, which the form has no fields for; null: the defaults. */
    this.halving = null;
    this.fault = h("p.fault", { role: "status" });
    this.drawn = h("div.two", { hidden: true }, field("Number of jobs", this.number), field("Seed of the draws", this.seed));
    this.more = h(
      "div.stack",
      { hidden: true },
      h("div.two", null, field("Jobs", this.way), field("Best job by held-out", this.metric), field("At a time", this.parallel, "Jobs queued or running; the next follows when one ends."), field("Course", this.strategy, "Successive halving: jobs pause at common shares of their steps, where the best by their held-out figure go on and the others are cancelled.")),
      this.drawn,
    );
    this.element = card(
      "Sweep",
      h("p.hint", null, "Optional: run this job with several values of a setting, as one. Stages that the jobs have in common run once."),
      this.list,
      this.fault,
      h("div.actions", null, add),
      this.more,
    );
    this.way.addEventListener("change", () => this.#show());
    this.onChange = onChange;
  }

  get isOn() {
    return this.#rows.some(({ values }) => isGiven(values()));
  }

  /** The body of `POST /sweeps` for this job. */
  request(job) {
    const { name, ...rest } = job;
    const varied = Object.fromEntries(
      this.#rows.map((row) => [row.path(), row.values()]).filter(([, values]) => isGiven(values)),
    );
    const body = { job: rest };
    if (name) body.name = name;
    if (this.metric.value) body.metric = this.metric.value;
    if (this.parallel.value.trim()) body.max_parallel = numberOr(this.parallel.value);
    if (this.strategy.value !== "all") body.strategy = this.strategy.value;
    if (this.strategy.value !== "all" && this.halving) body.halving = this.halving;
    if (this.way.value === "grid") return { ...body, grid: varied };
    const random = { num_members: numberOr(this.number.value.trim() || "8"), values: varied };
    if (this.seed.value.trim()) random.seed = numberOr(this.seed.value);
    return { ...body, random };
  }

  /** Show what a sweep's request varies; tells whether the form can. */
  take({ grid, random, members, metric, max_parallel: parallel, strategy, halving }) {
    if (members) return false;
    if (random) {
      this.way.value = "random";
      this.number.value = String(random.num_members);
      this.seed.value = String(random.seed ?? "");
    }
    for (const [path, values] of Object.entries(grid ?? random?.values ?? {})) this.#add(path, values);
    this.metric.value = metric ?? "";
    this.parallel.value = String(parallel ?? "");
    this.strategy.value = strategy ?? "all";
    this.halving = halving ?? null;
    this.#show();
    return true;
  }

  /** Shows faults of what is varied; returns those of the job, with their place in it, and those of no field. */
  showFaults(errors) {
    const own = (pointer) => /^\/(grid|random|metric|max_parallel|members|strategy|halving)\b/.test(pointer);
    const ofRow = (pointer) => this.#rows.some((row) => pointer === `/job/${row.path()}`);
    const mine = errors.filter(({ pointer }) => own(pointer ?? "") || ofRow(pointer ?? "") || pointer === "/job");
    fill(this.fault, mine.map(({ detail }) => h("span", null, detail, " ")));
    return errors.filter((error) => !mine.includes(error)).map((error) => ({ ...error, pointer: error.pointer?.replace(/^\/job/, "") }));
  }

  #add(path, values) {
    const place = this.#rows.length + 1;
    const which = h("select", { "aria-label": `Setting ${place}` }, groups());
    which.value = path ?? this.#next();
    const holder = h("div");
    const row = { path: () => which.value, values: () => [] };
    const build = (given) => {
      const made = this.#control(`/${which.value}`, place, given);
      row.values = made.values;
      fill(holder, made.element);
    };
    which.addEventListener("change", () => build());
    const drop = h("button.quiet", { type: "button", "aria-label": `Do not vary setting ${place}` }, icon("trash"));
    const element = h("div.varied", null, which, holder, drop);
    drop.addEventListener("click", () => {
      this.#rows.splice(this.#rows.indexOf(row), 1);
      element.remove();
      this.#show();
      this.onChange();
    });
    build(values);
    this.#rows.push(row);
    this.list.append(element);
    this.#show();
    if (!path) which.focus();
  }

  #next() {
    const taken = new Set(this.#rows.map((row) => `/${row.path()}`));
    return (OFTEN.find((pointer) => !taken.has(pointer)) ?? OFTEN[0]).slice(1);
  }

  #show() {
    this.more.hidden = this.#rows.length === 0;
    this.drawn.hidden = this.way.value !== "random";
  }

  /** Boxes to tick where a setting takes one of a list, else a line of values. */
  #control(pointer, place, given) {
    const setting = VARIED.find((item) => item.pointer === pointer) ?? { kind: "text" };
    const options = this.options[pointer] ?? optionsOf(setting);
    if (options) return boxes(options, place, given);
    const line = h("input", { type: "text", "aria-label": `Values of setting ${place}`, placeholder: placeholder(setting), autocomplete: "off" });
    line.value = given === undefined ? "" : Array.isArray(given) ? given.join(", ") : `${given.low} to ${given.high}${given.log ? " log" : ""}`;
    const values = () => rangeOf(line.value.trim(), setting.kind) ?? listOf(line.value, setting.kind);
    line.addEventListener("input", () => {
      if (Array.isArray(values())) return;
      this.way.value = "random";
      this.#show();
    });
    return { element: line, values };
  }
}

function groups() {
  const option = ({ pointer }) => h("option", { value: pointer.slice(1) }, pathName(pointer));
  const often = OFTEN.map((pointer) => VARIED.find((setting) => setting.pointer === pointer));
  return [
    h("optgroup", { label: "Often varied" }, often.map(option)),
    h("optgroup", { label: "All others" }, VARIED.filter((setting) => !often.includes(setting)).map(option)),
  ];
}

function optionsOf({ kind, keywords }) {
  if (kind === "boolean") return [[true, "yes"], [false, "no"]];
  return kind === "choice" ? keywords.map((word) => [word, word]) : null;
}

function boxes(options, place, given) {
  const chosen = new Set(given ?? []);
  const controls = options.map(([value, text]) => [value, h("input", { type: "checkbox", checked: chosen.has(value) }), text]);
  const element = h(
    "div.choices",
    { role: "group", "aria-label": `Values of setting ${place}` },
    controls.map(([, control, text]) => h("label.check", null, control, text)),
  );
  return { element, values: () => controls.filter(([, { checked }]) => checked).map(([value]) => value) };
}

function placeholder({ kind, pointer }) {
  if (pointer === "/beta") return "0.03, 0.1, 0.3 – or drawn: 0.01 to 1 log";
  if (kind === "integer") return "such as 1, 2, 3";
  return "such as 1e-5, 2e-5 – or drawn: 1e-6 to 1e-4 log";
}

function rangeOf(text, kind) {
  const found = RANGE.exec(text);
  if (!found) return null;
  const range = { low: numberOr(found[1]), high: numberOr(found[2]) };
  if (found[3]) range.log = true;
  if (kind === "integer") range.whole = true;
  return range;
}

function listOf(text, kind) {
  const words = text.split(",").map((word) => word.trim()).filter(Boolean);
  return words.map((word) => (kind === "integer" || kind === "number" ? numberOr(word) : word));
}

function isGiven(values) {
  return !Array.isArray(values) || values.length > 0;
}

/** What is no number is sent as it is, and refused by the service with its place. */
function numberOr(text) {
  return text.trim() && Number.isFinite(Number(text)) ? Number(text) : text;
}

function numeric(id, placeholder) {
  return h("input", { type: "text", inputmode: "numeric", id, placeholder, autocomplete: "off" });
}

function select(id, options) {
  return h("select", { id }, options.map(([value, text]) => h("option", { value }, text)));
}

function field(label, control, hint) {
  return h("div.field", null, h("label", { for: control.id }, label), control, hint ? h("span.hint", null, hint) : null);
}
