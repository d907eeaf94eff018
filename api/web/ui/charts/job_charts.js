// The charts of a job: what each shows, and how to read it.

import { Chart } from "./chart.js";
import { ChartSettings } from "./settings.js";
import { h } from "../dom.js";
import { count, metric, percent, signed } from "../format.js";

const LN2 = Math.log(2);

function pair(name, label, color, more = {}) {
  return [
    { stage: "dpo", split: "train", name, label, color, ...more },
    { stage: "dpo", split: "validation", name, label: `${label}, validation`, color, dash: true, points: true },
  ];
}

const LOSS = {
  title: "Loss",
  about: "SFT: nats per response token. DPO: preference loss per pair; it starts at ln 2 for DPO itself.",
  series: [
    { stage: "sft", split: "train", name: "loss", label: "SFT", color: "sft" },
    {
      stage: "sft",
      split: "validation",
      name: "loss",
      label: "SFT, validation",
      color: "sft",
      dash: true,
      points: true,
    },
    ...pair("loss", "DPO", "loss"),
  ],
};

const TOKEN_ACCURACY = {
  title: "Token accuracy",
  about: "SFT: share of response tokens that are the likeliest ones where they stand.",
  series: ["train", "validation"].map((split) => ({
    stage: "sft",
    split,
    name: "mean_token_accuracy",
    label: split === "train" ? "Train" : "Validation",
    color: "sft",
    ...(split === "train" ? {} : { dash: true, points: true }),
  })),
  range: () => [0, 1.02],
  format: (value) => percent(value),
};

const DPO_CHARTS = [
  {
    title: "Implicit rewards",
    about:
      "β · log(policy / reference). Chosen should rise above rejected; both falling together means the policy drifts.",
    series: [
      ...pair("rewards/chosen", "Chosen", "chosen"),
      ...pair("rewards/rejected", "Rejected", "rejected"),
      ...pair("rewards/margins", "Margin", "margin"),
    ],
    lines: [{ at: 0, label: "" }],
    format: signed,
  },
  {
    title: "Margin distribution",
    about:
      "How the pairs spread: a median that rises while the 10th percentile falls means some pairs are never learnt.",
    series: [
      { stage: "dpo", split: "train", name: "rewards/margins_p90", label: "90 %", color: "margin", width: 1 },
      { stage: "dpo", split: "train", name: "rewards/margins_p50", label: "Median", color: "margin", width: 2.25 },
      { stage: "dpo", split: "train", name: "rewards/margins_p10", label: "10 %", color: "margin", width: 1 },
      {
        stage: "dpo",
        split: "validation",
        name: "rewards/margins_p50",
        label: "Median, validation",
        color: "chosen",
        dash: true,
        points: true,
      },
    ],
    bands: [[1, 3]],
    lines: [{ at: 0, label: "" }],
    format: signed,
  },
  {
    title: "Reward accuracy",
    about: "Share of pairs whose chosen response has the higher reward. Training far above validation is overfitting.",
    // At step 0 policy and reference are one: every pair is a tie, which is no hit.
    series: pair("rewards/accuracies", "Train", "chosen").map((item, index) => ({
      ...item,
      fromStep: 1,
      label: index ? "Validation" : "Train",
    })),
    lines: [{ at: 0.5, label: "chance" }],
    range: () => [0, 1.02],
    format: (value) => percent(value),
  },
  {
    title: "Log-probabilities",
    about: "Of whole responses under the policy. Chosen falling is likelihood displacement: see the doctor's advice.",
    series: [...pair("logps/chosen", "Chosen", "chosen"), ...pair("logps/rejected", "Rejected", "rejected")],
  },
  {
    title: "How much is left to learn",
    about:
      "Gradient weight starts at 0.5 and falls as pairs are learnt; “fell” is the share of chosen responses that became less likely.",
    series: [
      ...pair("gradient_weight", "Gradient weight", "margin"),
      ...pair("logps/chosen_fell", "Chosen fell", "rejected"),
    ],
    range: () => [0, 1.02],
    format: (value) => metric(value),
  },
  {
    title: "Distance from the reference",
    about:
      "KL divergence in nats, estimated on sampled responses at each evaluation. A sudden rise: the policy has left the reference.",
    series: [
      { stage: "dpo", split: "validation", name: "kl/sampled", label: "KL, sampled", color: "margin", points: true },
    ],
  },
];

const MACHINERY = [
  {
    title: "Gradient norm",
    about: "Before clipping. Spikes are single hard batches; growth without end is divergence.",
    series: [
      { stage: "sft", split: "train", name: "grad_norm", label: "SFT", color: "sft" },
      { stage: "dpo", split: "train", name: "grad_norm", label: "DPO", color: "loss" },
    ],
  },
  {
    title: "Learning rate",
    series: [
      { stage: "sft", split: "train", name: "learning_rate", label: "SFT", color: "sft" },
      { stage: "dpo", split: "train", name: "learning_rate", label: "DPO", color: "loss" },
    ],
  },
  {
    title: "Throughput",
    about: "Tokens per second.",
    series: [
      { stage: "sft", split: "train", name: "tokens_per_second", label: "SFT", color: "sft" },
      { stage: "dpo", split: "train", name: "tokens_per_second", label: "DPO", color: "loss" },
    ],
    format: (value) => (value === null || value === undefined ? "–" : count(Math.round(value))),
  },
];

/** All charts of one job, drawn again by `show(curves)`. */
export class JobCharts {
  constructor(variant, signal) {
    const loss = variant === "dpo" ? { ...LOSS, lines: [{ at: LN2, label: "ln 2", stage: "dpo" }] } : LOSS;
    const settings = new ChartSettings();
    const make = (spec) => ({ spec, chart: new Chart(spec.series, { ...spec, settings }).attach(signal) });
    this.loss = make(loss);
    this.tokenAccuracy = make(TOKEN_ACCURACY);
    this.dpo = DPO_CHARTS.map(make);
    this.machinery = MACHINERY.map(make);
    const machinery = h(
      "details.machinery",
      { ontoggle: () => this.#curves && this.show(this.#curves) },
      h("summary", null, "Gradient norm, learning rate, throughput"),
      h(
        "div.charts",
        null,
        this.machinery.map(({ chart }) => chart.element),
      ),
    );
    this.element = h(
      "div",
      null,
      settings.controls(),
      h(
        "div.charts",
        null,
        this.loss.chart.element,
        this.tokenAccuracy.chart.element,
        this.dpo.map(({ chart }) => chart.element),
      ),
      machinery,
    );
    this.folded = machinery;
  }

  #curves = null;

  show(curves) {
    this.#curves = curves;
    const bands = curves.bands();
    const dpo = bands.filter(({ stage }) => stage === "dpo");
    this.#draw(this.loss, curves, bands);
    this.#draw(this.tokenAccuracy, curves, bands.filter(({ stage }) => stage === "sft"));
    for (const item of this.dpo) this.#draw(item, curves, dpo);
    if (this.folded.open) for (const item of this.machinery) this.#draw(item, curves, bands);
  }

  #draw({ spec, chart }, curves, bands) {
    chart.element.hidden = !spec.series.some(({ stage, split, name }) =>
      curves.of(stage, split).some(({ values }) => name in values),
    );
    if (!chart.element.hidden) chart.show(curves.columns(spec.series), bands);
  }
}
