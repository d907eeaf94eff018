// Parts of a job's page: stages, events, samples, settings.

import { get, path } from "../api.js";
import { fill, h, icon, withCode } from "../dom.js";
import { between, plural, setting, time } from "../format.js";
import { warningsNotice } from "../form/data_warnings.js";
import { labelOf } from "../form/layout.js";
import { SETTINGS } from "../form/settings.js";
import { bar, card, facts, notice } from "../parts.js";
import { term } from "../words.js";

const MAX_EVENTS = 500;
const STAGE_NAMES = {
  staging: "Staging",
  sft: "SFT",
  reference: "Reference",
  dpo: "DPO",
  reward: "Reward",
  evaluation: "Evaluation",
  publishing: "Publishing",
};
const WORD_OF = { sft: "SFT", dpo: "DPO", reward: "reward model" };

export function stageList(stages, current, progress, status) {
  return h(
    "ol.stages",
    null,
    stages.map((stage) => {
      const isCurrent = stage.name === current && status === "running";
      return h(
        "li",
        { "aria-current": isCurrent ? "step" : null },
        bar(fractionOf(stage, current, progress), STAGE_NAMES[stage.name]),
        h("span", null, term(WORD_OF[stage.name] ?? stage.name, STAGE_NAMES[stage.name])),
        h("span.hint", null, stageNote(stage, current, progress)),
      );
    }),
  );
}

function fractionOf(stage, current, progress) {
  if (["finished", "reused", "skipped"].includes(stage.status)) return 1;
  if (stage.name !== current || stage.status === "pending") return 0;
  return progress.total_steps ? progress.step / progress.total_steps : 0;
}

function stageNote(stage, current, progress) {
  if (stage.status === "reused") return ["taken over from ", h("a", { href: `#${path("jobs", stage.reused_from)}` }, "an earlier job")];
  if (stage.status === "skipped") return "skipped";
  if (stage.status === "finished")
    return [stage.steps ? plural(stage.steps, "step") : null, between(stage.started_at, stage.finished_at)]
      .filter(Boolean)
      .join(", ");
  if (stage.name === current && progress.total_steps) return `${progress.step} of ${progress.total_steps}`;
  return stage.status === "pending" ? "" : stage.status;
}

function textOf(event) {
  const warnings = warningsOf(event);
  return warnings ? `Queued, with ${plural(warnings.length, "warning")} of its data.` : event.message;
}

/** Events, newest on top; what is worth a look stands above the curves as well. */
export class EventList {
  #seen = new Set();

  constructor() {
    this.element = h("ol.events", null, h("li", null, h("span"), h("p.muted", null, "Nothing has happened yet.")));
    this.findings = h("div.stack", { hidden: true, role: "status", "aria-label": "Findings" });
    this.byKey = new Map();
  }

  add(event) {
    if (this.#seen.has(event.seq)) return;
    if (this.#seen.size === 0) fill(this.element);
    this.#seen.add(event.seq);
    this.element.prepend(
      h(
        "li",
        { class: `is-${event.level}` },
        h("time", { datetime: event.at }, time(event.at)),
        h("div", null, h("p", null, event.level === "info" ? null : [icon(event.level), " "], withCode(textOf(event)))),
      ),
    );
    if (this.element.childElementCount > MAX_EVENTS) this.element.lastElementChild.remove();
    if (event.level !== "info") this.#find(event);
  }

  /** What the page says above already is not said again. */
  hideRepeats(text) {
    for (const shown of this.byKey.values()) shown.hidden ||= Boolean(text) && shown.textContent.includes(text);
    this.findings.hidden = [...this.byKey.values()].every((shown) => shown.hidden);
  }

  /** One notice for each kind, and for each rule of the doctor: the newest word of it. */
  #find(event) {
    const { rule, stage } = event.data ?? {};
    const shown = warningsOf(event) ? datasetWarnings(warningsOf(event)) : finding(event);
    const key = [event.kind, rule, stage].join();
    const known = this.byKey.get(key);
    if (known) known.replaceWith(shown);
    else this.findings.append(shown);
    this.byKey.set(key, shown);
    this.findings.hidden = false;
  }
}

/** What the reports of the job's datasets warned of when it was queued; null of other events. */
function warningsOf({ kind, data }) {
  return kind === "submitted" && data?.warnings?.length ? data.warnings : null;
}

function datasetWarnings(warnings) {
  const shown = warningsNotice(warnings, "The report on the data warns");
  const ids = [...new Set(warnings.map(({ dataset_id: id }) => id))];
  shown.lastElementChild.append(h("p", null, ids.map((id) => [h("a", { href: `#${path("datasets", id)}` }, "Open the report"), " "])));
  return shown;
}

function finding({ level, message: text, data }) {
  const { rule, stage, step, message, advice, evidence, ...more } = data ?? {};
  return notice(
    level,
    h("strong", null, withCode(advice && message ? String(message) : text)),
    advice ? h("p", null, withCode(String(advice))) : null,
    rule ? h("p.hint", null, term("doctor", "Doctor"), `: ${rule}${stage ? `, ${stage} step ${step}` : ""}`) : null,
    evidenceView(evidence ?? more),
  );
}

function evidenceView(evidence) {
  if (!evidence || typeof evidence !== "object" || !Object.keys(evidence).length) return null;
  return h(
    "details",
    null,
    h("summary", null, "Evidence"),
    facts(
      Object.entries(evidence)
        .slice(0, 40)
        .map(([name, value]) => [name, setting(value)]),
    ),
  );
}

/** The sample prompts, answered before and after. Hidden while there are none. */
export class SamplesCard {
  #shown = "";

  constructor(jobId, signal) {
    this.address = path("jobs", jobId, "samples");
    this.signal = signal;
    this.body = h("div.stack");
    this.element = card(
      "Before and after",
      h("p.hint", null, "Greedy answers of the policy before and after the last training stage."),
      this.body,
    );
    this.element.hidden = true;
  }

  async refresh() {
    const { data } = await get(this.address, { signal: this.signal });
    const text = JSON.stringify(data);
    if (text === this.#shown) return;
    this.#shown = text;
    this.element.hidden = data.length === 0;
    fill(this.body, data.map(sampleView));
  }
}

function sampleView({ prompt, reference, policy, step }) {
  return h(
    "article.sample",
    null,
    h("div", null, h("span.side-title", null, "Prompt"), h("div.text", null, prompt)),
    h("div.two", null, side("Reference", "plain", reference), side(`Policy, step ${step}`, "policy", policy)),
  );
}

function side(title, kind, text) {
  return h(
    "div",
    null,
    h("span.side-title", null, title),
    h("div.text", { class: kind }, text || h("span.muted", null, "(empty)")),
  );
}

/** Datasets and jobs are links. */
function valueView(name, value) {
  if (value && name.endsWith("dataset_id")) return h("a", { href: `#${path("datasets", value)}` }, value);
  if (name === "base_model" && value.startsWith("job_")) return h("a", { href: `#${path("jobs", value)}` }, value);
  return setting(value);
}

/** The resolved spec; what the user set is told from what was resolved. */
const DESCRIPTIONS = new Map(SETTINGS.map(({ pointer, description }) => [pointer, description]));

function prefix(title) {
  return title === "Job" ? "" : `/${title.toLowerCase()}`;
}

const GROUPED = ["sft", "dpo", "reward", "lora"];

export function settingsCard({ spec, requested }) {
  const groups = [["Job", spec, requested ?? {}]];
  for (const name of GROUPED) {
    if (spec[name] && typeof spec[name] === "object")
      groups.push([name.toUpperCase(), spec[name], requested?.[name] ?? {}]);
  }
  const plain = Object.fromEntries(
    Object.entries(spec).filter(
      ([name, value]) =>
        !(GROUPED.includes(name) && value && typeof value === "object") &&
        !["name", "metadata", "priority"].includes(name),
    ),
  );
  groups[0][1] = plain;
  return card(
    "Settings",
    h("p.hint", null, "Effective settings. A dot marks those that you set; all others are defaults."),
    groups.map(([title, values, asked]) =>
      h(
        "details",
        { open: false },
        h("summary", null, title),
        facts(
          Object.entries(values).map(([name, value]) => [
            h("span", { title: DESCRIPTIONS.get(`${prefix(title)}/${name}`) ?? null }, labelOf(`${prefix(title)}/${name}`)),
            h("span", null, valueView(name, value), name in asked ? h("span", { title: "set by you" }, " •") : null),
          ]),
        ),
      ),
    ),
  );
}
