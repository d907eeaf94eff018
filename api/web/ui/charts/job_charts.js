// The charts of a job: what each shows, and how to read it.

import { Chart } from "./chart.js";
import { ChartSettings } from "./settings.js";
import { h } from "../dom.js";
import { count, metric, percent, signed } from "../format.js";

const LN2 = Math.log(2);

function both(stage, name, label, color, more = {}) {
  return [
    { stage, split: "train", name, label, color, ...more },
    { stage, split: "validation", name, label: `${label}, validation`, color, dash: true, points: true },
  ];
}

const LOSS = {
  title: "Loss",
  about:
    "SFT: nats per response token. DPO and reward models: loss per pair; it starts at ln 2 for DPO itself, and that is guessing.",
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
    ...both("dpo", "loss", "DPO", "loss"),
    ...both("reward", "loss", "Reward model", "loss"),
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

/** Charts of a stage that compares two responses. */
const comparing = (stage) => [
  {
    title: stage === "dpo" ? "Implicit rewards" : "Rewards",
    about:
      stage === "dpo"
        ? "β · log(policy / reference). Chosen should rise above rejected; both falling together means the policy drifts."
        : "The model's number of each response. Their difference counts; their common level is free unless it is centred.",
    series: [
      ...both(stage, "rewards/chosen", "Chosen", "chosen"),
      ...both(stage, "rewards/rejected", "Rejected", "rejected"),
      ...both(stage, "rewards/margins", "Margin", "margin"),
    ],
    lines: [{ at: 0, label: "" }],
    format: signed,
  },
  {
    title: "Margin distribution",
    about:
      "How the pairs spread: a median that rises while the 10th percentile falls means some pairs are never learnt.",
    series: [
      { stage, split: "train", name: "rewards/margins_p90", label: "90 %", color: "margin", width: 1 },
      { stage, split: "train", name: "rewards/margins_p50", label: "Median", color: "margin", width: 2.25 },
      { stage, split: "train", name: "rewards/margins_p10", label: "10 %", color: "margin", width: 1 },
      {
        stage,
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
    // At step 0 of DPO policy and reference are one: every pair is a tie, which is no hit.
    series: both(stage, "rewards/accuracies", "Train", "chosen").map((item, index) => ({
      ...item,
      fromStep: stage === "dpo" ? 1 : 0,
      label: index ? "Validation" : "Train",
    })),
    lines: [{ at: 0.5, label: "chance" }],
    range: () => [0, 1.02],
    format: (value) => percent(value),
  },
  {
    title: "How much is left to learn",
    about:
      "Gradient weight starts at 0.5 and falls as pairs are learnt; “fell” is the share of chosen responses that became less likely.",
    series: [
      ...both(stage, "gradient_weight", "Gradient weight", "margin"),
      ...both(stage, "logps/chosen_fell", "Chosen fell", "rejected"),
    ],
    range: () => [0, 1.02],
    format: (value) => metric(value),
  },
];

const CALIBRATION = {
  title: "Calibration error",
  about:
    "How far the reward model's probabilities of preferences are from the shares found on held-out pairs. Rising while accuracy stands: it has become too sure.",
  series: [
    { stage: "reward", split: "validation", name: "rewards/calibration_error", label: "Error", color: "margin", points: true },
  ],
  format: (value) => percent(value),
};

const COMPARED_CHARTS = [
  ...comparing("dpo"),
  {
    title: "Log-probabilities",
    about: "Of whole responses under the policy. Chosen falling is likelihood displacement: see the doctor's advice.",
    series: [...both("dpo", "logps/chosen", "Chosen", "chosen"), ...both("dpo", "logps/rejected", "Rejected", "rejected")],
  },
  {
    title: "Distance from the reference",
    about:
      "KL divergence in nats, estimated on sampled responses at each evaluation. A sudden rise: the policy has left the reference.",
    series: [
      { stage: "dpo", split: "validation", name: "kl/sampled", label: "KL, sampled", color: "margin", points: true },
    ],
  },
  ...comparing("reward"),
  CALIBRATION,
];

const machine = (name) => [
  { stage: "sft", split: "train", name, label: "SFT", color: "sft" },
  { stage: "dpo", split: "train", name, label: "DPO", color: "loss" },
  { stage: "reward", split: "train", name, label: "Reward model", color: "loss" },
];

const MACHINERY = [
  {
    title: "Gradient norm",
    about: "Before clipping. Spikes are single hard batches; growth without end is divergence.",
    series: machine("grad_norm"),
  },
  {
    title: "Learning rate",
    series: machine("learning_rate"),
  },
  {
    title: "Throughput",
    about: "Tokens per second.",
    series: machine("tokens_per_second"),
    format: (value) => (value === null || value === undefined ? "–" : count(Math.round(value))),
  },
];

/** All charts of one job, drawn again by `show(curves)`. */
export class JobCharts {
  constructor(variant, signal) {
    const guessing = variant === undefined ? "reward" : variant === "dpo" ? "dpo" : null;
    const loss = guessing ? { ...LOSS, lines: [{ at: LN2, label: "ln 2", stage: guessing }] } : LOSS;
    const settings = new ChartSettings();
    this.settings = settings;
    const make = (spec) => ({ spec, chart: new Chart(spec.series, { ...spec, settings }).attach(signal) });
    this.loss = make(loss);
    this.tokenAccuracy = make(TOKEN_ACCURACY);
    this.compared = COMPARED_CHARTS.map(make);
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
        this.compared.map(({ chart }) => chart.element),
      ),
      machinery,
    );
    this.folded = machinery;
  }

  #curves = null;

  show(curves) {
    this.#curves = curves;
    const bands = curves.bands();
    const compared = bands.filter(({ stage }) => stage !== "sft");
    this.#draw(this.loss, curves, bands);
    this.#draw(this.tokenAccuracy, curves, bands.filter(({ stage }) => stage === "sft"));
    for (const item of this.compared) this.#draw(item, curves, compared);
    if (this.folded.open) for (const item of this.machinery) this.#draw(item, curves, bands);
  }

  #draw({ spec, chart }, curves, bands) {
    chart.element.hidden = !spec.series.some(({ stage, split, name }) =>
      curves.of(stage, split).some(({ values }) => name in values),
    );
    if (!chart.element.hidden) chart.show(curves.columns(spec.series), bands);
  }
}
