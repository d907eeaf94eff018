// The form of a job: every setting of `settings.js`, the request they make, and faults shown where they are.

import { fill, h } from "../dom.js";
import { card } from "../parts.js";
import { makeField } from "./fields.js";
import { GROUPS, labelOf, ON_TOP } from "./layout.js";
import { SETTINGS } from "./settings.js";

const BY_POINTER = new Map(SETTINGS.map((setting) => [setting.pointer, setting]));
const SFT_CHOICES = [
  ["", "As the variant needs it (none for ORPO and CPO)"],
  ["on", "Yes: on the chosen responses, or on demonstrations"],
  ["skip", "No: start from the base model"],
];

const OF_A_LOSS = ["/variant", "/beta", "/variant_options/", "/dpo/"];
/** Settings without a meaning, by method; a group's end with a stroke. */
const NO_MEANING = {
  preference: ["/reward/"],
  supervised: [...OF_A_LOSS, "/sft", "/sft/dataset_id", "/score_training_pairs", "/reward/"],
  reward: [...OF_A_LOSS, "/sft", "/sft/", "/sample_prompts"],
};
/** Kinds of datasets that a method takes; of a preference job the variant's. */
const TAKEN = {
  preference: ["preference", "unpaired"],
  supervised: ["preference", "unpaired", "demonstration", "responses"],
  reward: ["preference"],
};

/** What the form is of: settings that it is `without` by method, other `hints`, and `data` where the method does not say which. */
const A_JOB = { without: {}, hints: {}, data: null };

/** Fields by JSON pointer. An empty field is left out of the request, so that the service's default holds. */
export class JobForm {
  #fields = new Map();
  #switches = new Map();
  #options = h("div.two");

  /** choices: {models, variants, datasets}; given: a request, each value of which the form then holds. */
  constructor(choices, given, purpose = A_JOB) {
    this.choices = choices;
    this.purpose = purpose;
    this.onChange = () => {};
    /** What could not be taken as given. */
    this.remarks = [];
    this.#build();
    if (given.method) this.#fields.get("/method").write(given.method);
    this.#methodChanged();
    this.#offerVariants(given.variant);
    this.#take(given);
    this.#variantChanged(given.variant_options ?? {});
    this.element.addEventListener("input", () => this.onChange());
    this.element.addEventListener("change", () => this.onChange());
  }

  get variant() {
    const name = this.#read("/variant");
    return this.choices.variants.find((variant) => variant.name === name) ?? this.choices.variants[0];
  }

  get method() {
    return this.#read("/method") || "preference";
  }

  get isPreference() {
    return this.method === "preference";
  }

  #hasNoMeaning(pointer) {
    const names = [...NO_MEANING[this.method], ...(this.purpose.without[this.method] ?? [])];
    return names.some((name) => pointer === name || (name.endsWith("/") && pointer.startsWith(name)));
  }

  /** The body of `POST /jobs`. */
  request() {
    const body = {};
    const isOff = (pointer) => [...this.#switches].some(([name, { isOn }]) => pointer.startsWith(`${name}/`) && !isOn());
    for (const [pointer, { read }] of this.#fields) {
      const value = isOff(pointer) || this.#hasNoMeaning(pointer) ? undefined : read();
      if (value !== undefined && pointer !== "/sft") put(body, pointer.slice(1).split("/"), value);
    }
    const sft = this.#hasNoMeaning("/sft") ? null : this.#read("/sft");
    if (sft === "skip") body.sft = "skip";
    else if (sft === "on") body.sft ??= {};
    for (const [pointer, { isOn, isOptional }] of this.#switches) if (isOptional && isOn()) body[pointer.slice(1)] ??= {};
    return body;
  }

  /** Marks the fields at fault; returns the faults that no field shows. */
  showFaults(errors) {
    for (const { control, fault } of this.#fields.values()) {
      control.removeAttribute("aria-invalid");
      fill(fault);
    }
    return errors.filter(({ pointer, detail }) => {
      const field = this.#fields.get(pointer) ?? this.#fields.get(pointer?.replace(/\/[^/]+$/, ""));
      if (!field) return true;
      field.control.setAttribute("aria-invalid", "true");
      fill(field.fault, detail);
      field.element.closest("details")?.setAttribute("open", "");
      return false;
    });
  }

  #build() {
    const { models } = this.choices;
    const hints = this.purpose.hints;
    const top = (pointer, more) => this.#add(makeField(BY_POINTER.get(pointer), { label: labelOf(pointer), ...more, ...(hints[pointer] ? { hint: hints[pointer] } : {}) }));
    this.element = h(
      "div.stack",
      null,
      card(
        "What",
        h(
          "div.two",
          null,
          top("/dataset_id", {
            label: "Dataset",
            hint: "What the job learns from: preference pairs, single responses marked good or bad, or demonstrations for a supervised job.",
            options: [],
          }),
          top("/base_model", { hint: "Where training starts.", options: models }),
          top("/name", { hint: "Optional; shown in lists." }),
        ),
      ),
      card(
        "How",
        h("div.two", null, top("/method", { hint: "Preference: SFT, then a preference loss. Supervised: SFT alone. Reward: a model that gives responses a number." })),
        h(
          "div.two",
          null,
          top("/variant", { hint: "Training objective. Its description is shown with the form.", options: [] }),
          top("/beta", { hint: "" }),
        ),
        this.#options,
        h(
          "div.two",
          null,
          top("/sft", {
            label: "Supervised fine-tuning first",
            hint: "DPO works best if the model can already produce answers like the chosen ones.",
            options: SFT_CHOICES,
          }),
        ),
        this.#switch("/lora"),
      ),
      this.#groups(),
    );
    this.#switches.set("/sft", { isOn: () => !this.isPreference || this.#read("/sft") !== "skip", isOptional: false });
    this.#fields.get("/method").control.addEventListener("change", () => this.#methodChanged());
    for (const pointer of ["/dataset_id", "/variant"])
      this.#fields.get(pointer).control.addEventListener("change", () => this.#dataOrVariantChanged(pointer));
  }

  #groups() {
    const placed = new Set([...ON_TOP, ...this.#fields.keys()]);
    const made = GROUPS.map(({ title, below, pointers }) => {
      const all = pointers ?? SETTINGS.map(({ pointer }) => pointer).filter((pointer) => pointer.startsWith(below));
      all.forEach((pointer) => placed.add(pointer));
      return this.#group(title, all.filter((pointer) => BY_POINTER.has(pointer)));
    });
    const isInside = (pointer) => [...placed].some((name) => pointer === name || pointer.startsWith(`${name}/`));
    const rest = SETTINGS.map(({ pointer }) => pointer).filter((pointer) => !isInside(pointer));
    return card(null, made, rest.length ? this.#group("Further settings", rest) : null);
  }

  #group(title, pointers) {
    const { datasets } = this.choices;
    const ofKind = (kind) => datasets.filter((item) => item.kind === kind).map(({ id, text }) => [id, text]);
    const options = {
      "/sft/dataset_id": () => [["", "The dataset's own responses"], ...ofKind("demonstration")],
      "/validation_dataset_id": () => [],
    };
    const isInGroup = (pointer) => pointers.some((name) => isGroup(name) && pointer.startsWith(`${name}/`));
    const isGroup = (pointer) => BY_POINTER.get(pointer).kind === "group";
    const make = (pointer) =>
      this.#add(makeField(BY_POINTER.get(pointer), { label: labelOf(pointer), options: options[pointer]?.() }));
    return h(
      "details",
      null,
      h("summary", null, title),
      h("div.stack", null, [
        h("div.two", null, pointers.filter((pointer) => !isGroup(pointer) && !isInGroup(pointer)).map(make)),
        pointers.filter(isGroup).map((pointer) => this.#switch(pointer)),
      ]),
    );
  }

  /** A group of settings that is sent as a whole or not at all. */
  #switch(pointer) {
    const control = h("input", { type: "checkbox", id: `f${pointer.replaceAll("/", "-")}` });
    const inner = SETTINGS.filter((setting) => setting.pointer.startsWith(`${pointer}/`));
    const fields = h(
      "div.two",
      { hidden: true },
      inner.map((setting) => this.#add(makeField(setting, { label: labelOf(setting.pointer) }))),
    );
    const set = (isOn) => {
      control.checked = isOn;
      fields.hidden = !isOn;
    };
    control.addEventListener("change", () => set(control.checked));
    this.#switches.set(pointer, { isOn: () => control.checked, set, isOptional: true });
    return h("div.stack", null, h("label.check", { for: control.id }, control, labelOf(pointer)), fields);
  }

  #add(field) {
    this.#fields.set(field.setting.pointer, field);
    return field.element;
  }

  #read(pointer) {
    return this.#fields.get(pointer).read();
  }

  /** Show what has a meaning for the method, and offer the datasets that it takes. */
  #methodChanged() {
    for (const [pointer, { element }] of this.#fields) {
      element.hidden = this.#hasNoMeaning(pointer);
      const group = /^\/(sft|dpo|reward)\//.exec(pointer)?.[0];
      if (group) element.closest("details").hidden = this.#hasNoMeaning(group);
    }
    this.#options.hidden = !this.isPreference || !this.#options.childElementCount;
    const ofKinds = (kinds) => this.choices.datasets.filter(({ kind }) => kinds.includes(kind)).map(({ id, text }) => [id, text]);
    const taken = ofKinds(this.purpose.data?.kinds ?? TAKEN[this.method]);
    this.#fields.get("/dataset_id").offer(taken.length === 1 ? taken : [["", "Choose a dataset"], ...taken]);
    this.#fields.get("/validation_dataset_id").offer([["", "None: a share of the dataset is held out"], ...ofKinds(TAKEN[this.method])]);
  }

  /** Variants for the kind of rows that the dataset has; of all kinds while none is chosen. */
  #offerVariants(wanted = this.#read("/variant")) {
    const dataset = this.choices.datasets.find(({ id }) => id === this.#read("/dataset_id"));
    const rows = this.purpose.data?.rows ?? dataset?.kind;
    const fitting = this.choices.variants.filter(({ data }) => !rows || !this.isPreference || data === rows);
    const field = this.#fields.get("/variant");
    field.offer(fitting.map(({ name, title }) => [name, `${name} · ${title}`]));
    if (fitting.some(({ name }) => name === wanted)) field.write(wanted);
    return fitting.some(({ name }) => name === wanted) ? null : (wanted ?? null);
  }

  #dataOrVariantChanged(pointer) {
    if (pointer === "/variant") return this.#variantChanged({});
    const before = this.#read("/variant");
    this.#offerVariants();
    if (this.#read("/variant") !== before) this.#variantChanged({});
    return undefined;
  }

  #variantChanged(given) {
    const { variant } = this;
    const beta = this.#fields.get("/beta");
    fill(beta.about, variant.beta_means);
    beta.control.placeholder = `${variant.default_beta} (default of ${variant.name})`;
    for (const pointer of [...this.#fields.keys()])
      if (pointer.startsWith("/variant_options/")) this.#fields.delete(pointer);
    const made = Object.entries(variant.options).map(([name, option]) => {
      const pointer = `/variant_options/${name}`;
      const setting = {
        pointer,
        kind: option.choices.length ? "choice" : "number",
        keywords: option.choices,
        default: option.default,
      };
      const field = makeField(setting, { label: name, hint: option.description });
      this.#add(field);
      if (name in given) field.write(given[name]);
      return field.element;
    });
    fill(this.#options, made);
    this.#options.hidden = made.length === 0 || !this.isPreference;
  }

  #take(given) {
    for (const [pointer, field] of this.#fields) {
      const value = at(given, pointer);
      if (value === undefined || value === null) continue;
      if (pointer === "/sft") field.write(value === "skip" ? "skip" : "on");
      else field.write(value);
      field.element.closest("details")?.setAttribute("open", "");
    }
    const lost = this.#offerVariants(given.variant);
    if (lost) this.remarks.push(`${lost} does not train on rows of this dataset, so ${this.variant.name} is chosen.`);
    for (const [pointer, { set }] of this.#switches) {
      const value = at(given, pointer);
      if (set && value !== undefined && value !== null) {
        set(true);
        this.#fields.get(`${pointer}/${Object.keys(value)[0]}`)?.element.closest("details")?.setAttribute("open", "");
      }
    }
  }
}

function at(given, pointer) {
  return pointer
    .slice(1)
    .split("/")
    .reduce((inner, key) => (inner && typeof inner === "object" ? inner[key] : undefined), given);
}

function put(body, keys, value) {
  const last = keys.pop();
  let inner = body;
  for (const key of keys) inner = inner[key] ??= {};
  inner[last] = value;
}
