// Win rates of a job's policies over its steps, beside its curves: a chart for each opponent and judge, and every judgement.

import { get, listAll, path } from "../api.js";
import { Chart } from "../charts/chart.js";
import { fill, h } from "../dom.js";
import { ago, count, percent } from "../format.js";
import { badge, card, FINAL, table, tableRow } from "../parts.js";
import { term } from "../words.js";
import { shareCell } from "./interval.js";
import { ModelLabels } from "./models.js";
import { judgeName, rootOf } from "./words.js";

const MAX_CHARTS = 6;
const MAX_ROWS = 10;
const SERIES = [
  { label: "Upper end", color: "margin", width: 1 },
  { label: "Win rate", color: "margin", width: 2.25, points: true },
  { label: "Lower end", color: "margin", width: 1 },
  { label: "At equal length", color: "chosen", dash: true, points: true },
];

export class WinRatesCard {
  #shown = "";
  #charts = new Map();
  #rates = [];
  #bands = [];

  /** `settings` are those of the job's charts: all of them show the same steps. */
  constructor(job, signal, settings) {
    this.job = job;
    this.signal = signal;
    this.settings = settings;
    this.labels = new ModelLabels(signal);
    this.charts = h("div.charts");
    this.body = h("div.stack");
    this.element = card(term("win rate", "Win rate"), this.charts, this.body);
    this.element.hidden = true;
    this.charts.hidden = true;
  }

  /** Ask for what was judged of the job's policies, and of its answers; `hasPolicy`: it has something that can answer. */
  async refresh(hasPolicy) {
    const query = { job_id: this.job.id, limit: MAX_ROWS };
    const [rates, generations] = await Promise.all([
      listAll(`${path("jobs", this.job.id)}/win-rates`, { signal: this.signal, pages: 3 }),
      get("/generations", { query, signal: this.signal }),
    ]);
    const text = JSON.stringify([rates, generations.data, hasPolicy]);
    if (text === this.#shown) return;
    this.#shown = text;
    this.element.hidden = !(hasPolicy || rates.length);
    await this.labels.learn(rates.flatMap(({ policy, against, judge }) => [policy, against, judge.job_id ?? ""]));
    this.#rates = rates;
    this.#draw();
    fill(this.body, rates.length ? this.#table(rates) : this.#nothing(), this.#answers(generations.data), this.#actions(hasPolicy));
  }

  /** Where the stages of the job's curves stand on their axis, which these charts have too. */
  place(bands) {
    const own = bands.filter(({ stage }) => stage === this.#last());
    if (JSON.stringify(own) === JSON.stringify(this.#bands)) return;
    this.#bands = own;
    this.#draw();
  }

  #draw() {
    const groups = new Map();
    for (const rate of this.#rates) {
      const step = this.#stepOf(rate);
      if (step === null || !rate.win_rate) continue;
      const judge = { ...rate.judge, job_id: rate.judge.job_id ? this.labels.of(rate.judge.job_id) : null };
      const key = `${this.labels.of(rate.against)}: ${judgeName(judge)}, ${rootOf(rate.source)}`;
      if (!groups.has(key)) groups.set(key, { rate, judge, points: new Map() });
      const { points } = groups.get(key);
      if (!points.has(step)) points.set(step, rate); // the newest judgement of a step
    }
    const shown = [...groups].slice(0, MAX_CHARTS);
    for (const [key, { rate, judge, points }] of shown) this.#chart(key, rate, judge).show(columnsOf(points, this.#bands[0]?.from ?? 0), this.#bands);
    this.charts.hidden = !shown.length;
  }

  /** Step of the last stage of training that a policy is of; what it began with is step 0. */
  #stepOf({ stage, step }) {
    const last = this.#last();
    if (stage === last) return step;
    return stage === "sft" && step === null && last === "dpo" ? 0 : null;
  }

  #hasManySources() {
    return new Set(this.#rates.map(({ source }) => rootOf(source))).size > 1;
  }

  #last() {
    return this.job.stages.findLast(({ name }) => ["sft", "dpo"].includes(name))?.name;
  }

  #chart(key, rate, judge) {
    const known = this.#charts.get(key);
    if (known) return known;
    const chart = new Chart(SERIES, {
      title: `Win rate against ${this.labels.of(rate.against)}`,
      about: `Judge: ${judgeName(judge)}. Between the ends lies the 95 % interval.${this.#hasManySources() ? ` Answers: ${rootOf(rate.source)}.` : ""}`,
      bands: [[1, 3]],
      lines: [{ at: 0.5, label: "even" }],
      range: () => [0, 1.02],
      format: (value) => percent(value),
      isWholeX: true,
      settings: this.settings,
    }).attach(this.signal);
    this.#charts.set(key, chart);
    this.charts.append(chart.element);
    return chart;
  }

  #table(rates) {
    const row = (rate) =>
      tableRow(
        [this.#policy(rate), h("div.hint", null, `against ${this.labels.of(rate.against)}`)],
        rate.win_rate ? shareCell(rate.win_rate) : [badge(rate.status), FINAL.has(rate.status) ? null : h("div.hint", null, `${count(rate.num_judged)} of ${count(rate.num_pairs)}`)],
        h("a", { href: `#${path("judgements", rate.judgement_id)}` }, rate.name ?? judgeName(rate.judge)),
        h("span.muted", null, ago(rate.created_at)),
      );
    const left = rates.length - MAX_ROWS;
    return [
      table(["Policy", "Win rate", "Judgement", "Created"], rates.slice(0, MAX_ROWS).map(row)),
      left > 0 ? h("p.hint", null, h("a", { href: `#/judgements?job_id=${this.job.id}` }, `${count(left)} more judgements`)) : null,
    ];
  }

  #policy({ policy, stage, step }) {
    if (policy === this.job.id) return `Published policy${step === null ? "" : `, step ${step}`}`;
    if (policy.endsWith("@sft")) return "SFT policy";
    return stage ? `${stage === "dpo" ? "DPO" : "SFT"} step ${step}` : "Deleted checkpoint";
  }

  #nothing() {
    return h("p.muted", null, "Nothing of this job has been judged yet. Have its policies answer prompts, then have the answers judged.");
  }

  #answers(generations) {
    if (!generations.length) return null;
    const item = ({ id, name, status, dataset_id: dataset }) =>
      h("li", null, h("a", { href: `#${path("generations", id)}` }, name ?? id), " ", dataset ? h("a", { href: `#/judgements/new?dataset_id=${dataset}` }, "judge") : badge(status));
    return h("details", null, h("summary", null, "Answers of this job’s policies"), h("ul", null, generations.map(item)));
  }

  #actions(hasPolicy) {
    if (!hasPolicy) return null;
    const { id } = this.job;
    return h(
      "div.actions",
      null,
      h("a.button", { href: `#/generations/new?job=${id}` }, "Generate answers"),
      h("a.button", { href: `#/generations/new?job=${id}&checkpoints=1` }, "Generate with checkpoints"),
      h("a.button", { href: `#/judgements/new?job=${id}` }, "Judge answers"),
    );
  }
}

function columnsOf(points, start) {
  const steps = [...points.keys()].sort((one, other) => one - other);
  const of = (read) => steps.map((step) => read(points.get(step)));
  return [
    steps.map((step) => start + step),
    of(({ win_rate: rate }) => rate.high),
    of(({ win_rate: rate }) => rate.value),
    of(({ win_rate: rate }) => rate.low),
    of(({ length_controlled: rate }) => rate?.value ?? null),
  ];
}
