// What is asked of rounds beside their job: how they start and end, answers, judge, pairs, and how policies are compared.

import { h } from "../dom.js";
import { field, number, read, select } from "../form/plain.js";
import { JudgeFields } from "../judging/judge_fields.js";
import { card } from "../parts.js";

const PAIRINGS = [
  ["", "As the method needs it"],
  ["best_worst", "Best answer against the worst"],
  ["all", "Every two that differ by more than the margin"],
  ["file", "Each answer against the file's chosen response"],
  ["best", "Best answer alone (rejection sampling; supervised jobs)"],
];
const REFERENCES = [
  ["start", "The policy of the round before, on its own pairs"],
  ["first", "The first policy, on the pairs of all rounds so far"],
];
const INITIAL = [
  ["", "The base model itself"],
  ["supervised", "A policy that is first fine-tuned on the file's good responses"],
];
const NUMBERS = {
  num_rounds: ["/num_rounds", "Rounds at most", "3", { min: "1", max: "50" }],
  seed: ["/seed", "Seed of the draws", "0", { min: "0" }, "Of the split and of every draw of prompts and rows."],
  num_prompts: ["/generation/num_prompts", "Prompts of a round", "256", { min: "1", max: "10000" }, "Drawn anew in each."],
  num_samples: ["/generation/num_samples", "Answers to each prompt", "4", { min: "1", max: "16" }, "An even number: they are judged two at a time."],
  max_tokens: ["/generation/sampling/max_tokens", "Longest answer, in tokens", "256", { min: "1", max: "8192" }],
  temperature: ["/generation/sampling/temperature", "Temperature", "1", { min: "0", max: "2", step: "0.05" }],
  top_p: ["/generation/sampling/top_p", "Top p", "1", { min: "0.01", max: "1", step: "0.01" }],
  sampling_seed: ["/generation/sampling/seed", "Seed of the answers", "0", { min: "0" }],
  margin: ["/pairing/margin", "Margin", "0", { min: "0", step: "any" }, "Scores must differ by more, in the judge's units; not of a language model, which gives none."],
  max_pairs: ["/pairing/max_pairs_per_prompt", "Pairs of a prompt at most", "8", { min: "1", max: "64" }],
  min_score: ["/pairing/min_score", "Least score of an answer that is imitated", "better than another one", { step: "any" }],
  file_ratio: ["/file_ratio", "Rows of the file for each row of the round", "0", { min: "0", max: "10", step: "any" }, "1: as many; drawn anew in each round."],
  held_out: ["/evaluation/held_out_fraction", "Share of prompts held out", "0.1", { min: "0.01", max: "0.5", step: "any" }, "Nothing trains on them."],
  num_compared: ["/evaluation/num_prompts", "Held-out prompts at most", "200", { min: "2", max: "5000" }, "The same in every round; more of them find smaller differences."],
};
const OF_EVERY_TWO = ["all", "file"];
const OF_THE_BEST = ["", "best"];

export class RequestFields {
  /** `given`: a request; `jobs`: those with rewards, `datasets`: of which prompts may be held out, as [[id, label]]. */
  constructor(given, { jobs, datasets }) {
    this.given = given;
    this.numbers = Object.fromEntries(
      Object.entries(NUMBERS).map(([name, [pointer, , unset, bounds]]) => [name, number(`r-${name}`, at(given, pointer) ?? "", { placeholder: `${unset} (default)`, step: "1", ...bounds })]),
    );
    this.name = h("input", { id: "r-name", maxlength: "200", autocomplete: "off", value: given.name ?? "" });
    const own = given.initial && !isPlainStart(given.initial) ? [["kept", "As in the rounds that these are a copy of"]] : [];
    this.initial = select("r-initial", [...INITIAL, ...own], own.length ? "kept" : given.initial ? "supervised" : "");
    this.stops = box("r-stops", given.stop_early ?? true);
    this.pairing = select("r-pairing", PAIRINGS, given.pairing?.kind ?? "");
    this.reference = select("r-reference", REFERENCES, given.reference ?? "start");
    this.heldOut = select("r-held-out-data", [["", "A part of the dataset above"], ...datasets], given.evaluation?.dataset_id ?? "");
    this.judge = new JudgeFields(given.judge ?? {}, jobs, [], { id: "r-judge" });
    const compares = given.evaluation?.judge;
    this.other = box("r-other", Boolean(compares));
    this.comparing = new JudgeFields(compares ?? {}, jobs, [], { at: "/evaluation/judge", id: "r-compare", label: "Who compares" });
    this.cards = this.#build();
    this.update();
  }

  #build() {
    const one = Object.fromEntries(Object.entries(NUMBERS).map(([name, [, label, , , hint]]) => [name, field(label, this.numbers[name], hint)]));
    this.fields = one;
    return {
      rounds: card(
        "Rounds",
        h("div.two", null, field("Name of the rounds", this.name, "Optional; all that they make has it."), one.num_rounds, field("Start from", this.initial), field("Each round trains from", this.reference), one.seed),
        check(this.stops, "End once a round's policy is no better than the one before"),
      ),
      judge: card("Judge", this.judge.element),
      answers: card("Answers", h("div.two", null, one.num_prompts, one.num_samples, one.max_tokens, one.temperature, one.top_p, one.sampling_seed)),
      pairs: card("What is learnt", h("div.two", null, field("Pairs", this.pairing), one.margin, one.max_pairs, one.min_score, one.file_ratio)),
      comparison: card(
        "How policies are compared",
        h("div.two", null, field("Held-out prompts", this.heldOut), one.held_out, one.num_compared),
        check(this.other, "Another judge compares them"),
        this.comparing.element,
      ),
    };
  }

  /** Show the fields that what is chosen has. */
  update() {
    this.comparing.element.hidden = !this.other.checked;
    this.fields.held_out.hidden = this.heldOut.value !== "";
    this.fields.max_pairs.hidden = !OF_EVERY_TWO.includes(this.pairing.value);
    this.fields.min_score.hidden = !OF_THE_BEST.includes(this.pairing.value);
  }

  /** The body of `POST /rounds` with this job; throws a fault. */
  request(job) {
    const body = { job, judge: this.judge.value() };
    const name = this.name.value.trim();
    if (name) body.name = name;
    if (!this.stops.checked) body.stop_early = false;
    if (this.reference.value !== "start") body.reference = this.reference.value;
    for (const [each, control] of Object.entries(this.numbers)) {
      const value = this.fields[each].hidden ? null : read(control);
      if (value !== null) put(body, NUMBERS[each][0], value);
    }
    const kind = this.pairing.value || (body.pairing ? (job.method === "supervised" ? "best" : "best_worst") : "");
    if (kind) put(body, "/pairing/kind", kind);
    if (this.initial.value === "kept") body.initial = this.given.initial;
    if (this.initial.value === "supervised") body.initial = { base_model: job.base_model, dataset_id: job.dataset_id, method: "supervised", ...(job.lora ? { lora: job.lora } : {}) };
    if (this.heldOut.value) put(body, "/evaluation/dataset_id", this.heldOut.value);
    if (this.other.checked) put(body, "/evaluation/judge", this.comparing.value());
    if (Object.keys(this.given.metadata ?? {}).length) body.metadata = this.given.metadata;
    return body;
  }

  /** Controls by JSON pointer. */
  controls() {
    const own = [
      ["/name", this.name],
      ["/initial", this.initial],
      ["/stop_early", this.stops],
      ["/pairing", this.pairing],
      ["/reference", this.reference],
      ["/evaluation/dataset_id", this.heldOut],
      ...Object.entries(this.numbers).map(([name, control]) => [NUMBERS[name][0], control]),
      ...this.judge.controls(),
      ...(this.other.checked ? this.comparing.controls() : []),
    ];
    return new Map(own);
  }
}

/** A first policy as this form asks for it. */
function isPlainStart({ base_model: _base, dataset_id: _data, lora: _lora, method, ...rest }) {
  return method === "supervised" && !Object.keys(rest).length;
}

function box(id, checked) {
  return h("input", { type: "checkbox", id, checked, "aria-describedby": `${id}-fault` });
}

function check(control, label) {
  return h("div", null, h("label.check", { for: control.id }, control, label), h("span.fault", { id: `${control.id}-fault` }));
}

function at(value, pointer) {
  return pointer
    .slice(1)
    .split("/")
    .reduce((inner, key) => inner?.[key], value);
}

function put(body, pointer, value) {
  const keys = pointer.slice(1).split("/");
  const last = keys.pop();
  let inner = body;
  for (const key of keys) inner = inner[key] ??= {};
  inner[last] = value;
}
