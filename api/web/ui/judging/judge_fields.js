// Who judges, with the settings of each kind.

import { h } from "../dom.js";
import { field, number, read, select } from "../form/plain.js";
import { JUDGES } from "./words.js";

const OWN = {
  length: ["prefers"],
  regex: ["pattern"],
  exact_match: ["text"],
  json_schema: ["json_schema"],
  reward: ["job_id"],
  model: ["criteria", "max_requests"],
  arena: ["arena_id"],
};

/**
 * `given`: a judge as the API has it; `jobs`, `arenas`: [[id, label]]; `at`: where the request has it, `id`: what ids of
 * its controls begin with. `value()` gives the judge; throws a fault.
 */
export class JudgeFields {
  constructor(given, jobs, arenas, { at = "/judge", id = "j", label = "Who judges" } = {}) {
    this.at = at;
    this.template = given.template ?? null; // has no field, and a copy keeps it
    const offered = Object.entries(JUDGES).filter(([name]) => (name === "reward" ? jobs.length : name === "arena" ? arenas.length : true));
    this.kind = select(`${id}-kind`, offered, given.kind ?? "length");
    const area = (name, value, rows) => {
      const control = h("textarea", { id: `${id}-${name}`, rows });
      control.value = value ?? "";
      return control;
    };
    this.settings = {
      prefers: [select(`${id}-prefers`, [["shorter", "The shorter answer"], ["longer", "The longer answer"]], given.prefers ?? "shorter"), "Better"],
      pattern: [h("input", { id: `${id}-pattern`, value: given.pattern ?? "", maxlength: "2000", autocomplete: "off", spellcheck: "false" }), "Regular expression", "An answer in which it is found is better; Rust's syntax, without look-around."],
      text: [area("text", given.text, "3"), "Text", "But for white space at its ends."],
      json_schema: [area("schema", given.json_schema ? JSON.stringify(given.json_schema, null, 2) : "", "6"), "JSON schema", "Draft 2020-12, as JSON."],
      job_id: [select(`${id}-job`, jobs, given.job_id), "Job", "A reward model, or a preference job whose policy gives implicit rewards."],
      criteria: [area("criteria", given.criteria, "3"), "What makes an answer better", "In your words; empty: helpful, correct and clear."],
      max_requests: [number(`${id}-requests`, given.max_requests ?? "", { min: "1", max: "100000", placeholder: "the operator's bound" }), "Requests at most", "Each pair is asked for in both orders, and again where a request fails."],
      arena_id: [select(`${id}-arena`, arenas, given.arena_id), "Arena", "One of the same pairs: pairs without votes have no verdict."],
    };
    this.fields = Object.fromEntries(Object.entries(this.settings).map(([name, [control, label, hint]]) => [name, field(label, control, hint)]));
    this.element = h("fieldset", null, field(label, this.kind), Object.values(this.fields));
    this.kind.addEventListener("change", () => this.#update());
    this.#update();
  }

  #update() {
    for (const [name, element] of Object.entries(this.fields)) element.hidden = !OWN[this.kind.value].includes(name);
  }

  value() {
    const kind = this.kind.value;
    const given = OWN[kind].map((name) => [name, this.#read(name)]).filter(([, value]) => value !== null && value !== "");
    return { kind, ...(kind === "model" && this.template ? { template: this.template } : {}), ...Object.fromEntries(given) };
  }

  #read(name) {
    const [control] = this.settings[name];
    if (name === "max_requests") return read(control);
    if (name !== "json_schema" || !control.value.trim()) return name === "text" ? control.value : control.value.trim();
    try {
      return JSON.parse(control.value);
    } catch (error) {
      const detail = `This is no JSON: ${error.message}`;
      throw Object.assign(new Error(detail), { title: "The schema cannot be read", errors: [{ pointer: `${this.at}/json_schema`, detail }] });
    }
  }

  /** Controls by JSON pointer; a fault of the judge as a whole stands at the setting of its kind. */
  controls() {
    const [name] = OWN[this.kind.value];
    const own = Object.entries(this.settings).map(([setting, [control]]) => [`${this.at}/${setting}`, control]);
    return new Map([[`${this.at}/kind`, this.kind], [this.at, this.settings[name][0]], ...own]);
  }
}
