// The form of a job: fields, the request they make, and faults shown where they are.

import { fill, h } from "./dom.js";
import { card } from "./parts.js";

const AUTO = "auto";

/** Fields by JSON pointer. An empty field is left out of the request, so that the service's default holds. */
export class JobForm {
  #fields = new Map();
  #options = h("div.two");

  constructor(choices, given) {
    this.choices = choices;
    this.onChange = () => {};
    this.#build();
    this.#take(given);
    this.#fillOptions(given.variant_options ?? {});
    this.element.addEventListener("input", () => this.onChange());
    this.element.addEventListener("change", () => this.onChange());
  }

  get variant() {
    return this.choices.variants.find(({ name }) => name === this.#value("/variant"));
  }

  /** The body of `POST /jobs`. */
  request() {
    const body = {};
    const skipsSft = this.#value("/sft") === "skip";
    for (const [pointer, { read }] of this.#fields) {
      if (pointer.startsWith("/lora/") && !this.#value("/lora")) continue;
      if (pointer.startsWith("/sft/") && skipsSft) continue;
      const value = read();
      if (value !== undefined && !["/sft", "/lora"].includes(pointer)) put(body, pointer.slice(1).split("/"), value);
    }
    if (skipsSft) body.sft = "skip";
    if (this.#value("/sft") === "on") body.sft ??= {};
    if (this.#value("/lora")) body.lora ??= {};
    return body;
  }

  /** Marks the fields at fault; returns the faults that no field shows. */
  showFaults(errors) {
    for (const { control, fault } of this.#fields.values()) {
      control.removeAttribute("aria-invalid");
      fill(fault);
    }
    return errors.filter(({ pointer, detail }) => {
      const field = this.#fields.get(pointer);
      if (!field) return true;
      field.control.setAttribute("aria-invalid", "true");
      fill(field.fault, detail);
      field.element.closest("details")?.setAttribute("open", "");
      return false;
    });
  }

  #build() {
    const { models, datasets, demonstrations, variants } = this.choices;
    const variant = this.#select(
      "/variant",
      "Variant",
      variants.map(({ name, title }) => [name, `${name} · ${title}`]),
      "Training objective. Its description is shown with the form.",
    );
    this.#fields.get("/variant").control.addEventListener("change", () => this.#fillOptions({}));
    const lora = [
      this.#number("/lora/rank", "Rank", "16"),
      this.#number("/lora/alpha", "Alpha", "32"),
      this.#number("/lora/dropout", "Dropout", "0"),
    ];
    const loraFields = h("div.two", { hidden: true }, lora);
    const loraBox = this.#check("/lora", "Train a LoRA adapter instead of all weights");
    this.#fields.get("/lora").control.addEventListener("change", () => (loraFields.hidden = !this.#value("/lora")));
    this.showLora = () => (loraFields.hidden = !this.#value("/lora"));
    const sftKinds = [
      ["", "As the variant needs it (none for ORPO and CPO)"],
      ["on", "On the chosen responses"],
      ["skip", "Skip: start from the base model"],
    ];
    const sftData = demonstrations.length
      ? this.#select("/sft/dataset_id", "SFT data", [["", "The chosen responses"], ...demonstrations])
      : null;
    this.element = h(
      "div.stack",
      null,
      card(
        "What",
        h(
          "div.two",
          null,
          this.#select("/dataset_id", "Preference pairs", datasets),
          this.#select("/base_model", "Base model", models),
          this.#text("/name", "Name", "optional; shown in lists"),
        ),
      ),
      card(
        "How",
        h(
          "div.two",
          null,
          variant,
          this.#number("/beta", "Beta", "the variant's default", "Strength of the pull to the reference."),
        ),
        this.#options,
        h(
          "div.two",
          null,
          this.#select(
            "/sft",
            "Supervised fine-tuning first",
            sftKinds,
            "DPO works best if the model can already produce answers like the chosen ones.",
          ),
          sftData,
        ),
        loraBox,
        loraFields,
      ),
      card(
        null,
        h(
          "details",
          null,
          h("summary", null, "Training settings"),
          h("div.stack", null, this.#stage("sft", "SFT"), this.#stage("dpo", "DPO")),
        ),
      ),
      card(
        null,
        h(
          "details",
          null,
          h("summary", null, "Data, validation and more"),
          h("div.two", null, this.#more()),
          this.#prompts(),
        ),
      ),
    );
  }

  #stage(name, title) {
    return h(
      "fieldset",
      null,
      h("legend", null, title),
      h(
        "div.two",
        null,
        this.#number(`/${name}/epochs`, "Epochs", AUTO),
        this.#number(`/${name}/learning_rate`, "Learning rate", AUTO),
        this.#number(`/${name}/batch_size`, name === "dpo" ? "Pairs per step" : "Rows per step", AUTO),
        this.#number(`/${name}/warmup_steps`, "Warm-up steps", AUTO),
      ),
    );
  }

  #more() {
    return [
      this.#number("/max_length", "Longest pair, tokens", "1024", "Longer pairs are skipped and listed in the report."),
      this.#number("/validation_fraction", "Held-out share", "0.05"),
      this.#number("/evaluate_every_steps", "Evaluate every … steps", AUTO),
      this.#number("/checkpoint_every_steps", "Checkpoint every … steps", AUTO),
      this.#number("/seed", "Seed", "0"),
      this.#number("/priority", "Priority", "0", "Higher runs first, -100 to 100."),
      this.#select("/precision", "Precision", [
        ["", AUTO],
        ["bf16", "bf16"],
        ["fp32", "fp32"],
      ]),
      this.#number("/max_runtime_seconds", "Time limit, seconds", "no limit"),
    ];
  }

  #prompts() {
    const control = h("textarea", { id: idOf("/sample_prompts"), placeholder: "one prompt a line" });
    const read = () => {
      const prompts = control.value
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
      return prompts.length ? prompts : undefined;
    };
    return this.#field(
      "/sample_prompts",
      "Sample prompts",
      control,
      read,
      "Answered before and after training.",
      (value) => (control.value = value.join("\n")),
    );
  }

  #fillOptions(given) {
    for (const pointer of [...this.#fields.keys()])
      if (pointer.startsWith("/variant_options/")) this.#fields.delete(pointer);
    const made = Object.entries(this.variant.options).map(([name, option]) => {
      const pointer = `/variant_options/${name}`;
      const field = option.choices.length
        ? this.#select(
            pointer,
            name,
            [["", `${option.default} (default)`], ...option.choices.map((choice) => [choice, choice])],
            option.description,
          )
        : this.#number(pointer, name, String(option.default), option.description);
      if (name in given) this.#fields.get(pointer).write(given[name]);
      return field;
    });
    fill(this.#options, made);
    this.#options.hidden = made.length === 0;
  }

  #take(given) {
    for (const [pointer, { write }] of this.#fields) {
      const value = pointer
        .slice(1)
        .split("/")
        .reduce((inner, key) => (inner && typeof inner === "object" ? inner[key] : undefined), given);
      if (value !== undefined && value !== null && value !== AUTO) write(value);
    }
    this.showLora();
  }

  #value(pointer) {
    const { control } = this.#fields.get(pointer);
    return control.type === "checkbox" ? control.checked : control.value;
  }

  #select(pointer, label, options, hint) {
    const control = h(
      "select",
      { id: idOf(pointer) },
      options.map(([value, text]) => h("option", { value }, text)),
    );
    const write = (value) => {
      if (options.some(([known]) => known === value)) control.value = value;
    };
    return this.#field(pointer, label, control, () => control.value || undefined, hint, write);
  }

  #number(pointer, label, placeholder, hint) {
    const control = h("input", {
      type: "text",
      inputmode: "decimal",
      id: idOf(pointer),
      placeholder,
      autocomplete: "off",
    });
    const read = () => {
      const text = control.value.trim();
      if (!text) return undefined;
      return Number.isFinite(Number(text)) ? Number(text) : text;
    };
    return this.#field(pointer, label, control, read, hint);
  }

  #text(pointer, label, placeholder) {
    const control = h("input", { type: "text", id: idOf(pointer), placeholder, maxlength: "255", autocomplete: "off" });
    return this.#field(pointer, label, control, () => control.value.trim() || undefined);
  }

  #check(pointer, label) {
    const control = h("input", { type: "checkbox", id: idOf(pointer) });
    const fault = h("span.fault");
    const element = h("label.check", null, control, label, fault);
    this.#fields.set(pointer, {
      control,
      fault,
      element,
      read: () => control.checked || undefined,
      write: (value) => (control.checked = Boolean(value)),
    });
    return element;
  }

  #field(pointer, label, control, read, hint = null, write = (value) => (control.value = String(value))) {
    const fault = h("span.fault", { id: `${control.id}-fault` });
    control.setAttribute("aria-describedby", fault.id);
    const element = h(
      "div.field",
      null,
      h("label", { for: control.id }, label),
      control,
      hint ? h("span.hint", null, hint) : null,
      fault,
    );
    this.#fields.set(pointer, { control, fault, element, read, write });
    return element;
  }
}

function idOf(pointer) {
  return `f${pointer.replaceAll("/", "-")}`;
}

function put(body, keys, value) {
  const last = keys.pop();
  let inner = body;
  for (const key of keys) inner = inner[key] ??= {};
  inner[last] = value;
}
