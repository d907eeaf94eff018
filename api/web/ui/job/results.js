// What a job ended with, as far as it can be trusted: held-out figures with intervals, beside baselines.

import { get, path } from "../api.js";
import { fill, h } from "../dom.js";
import { metric, percent, plural, signed } from "../format.js";
import { card, notice, table, tableRow } from "../parts.js";
import { term } from "../words.js";

/** Fewer held-out rows than this tell little: the interval of an accuracy is wider than 30 points. */
const FEW_ROWS = 30;
const BASELINES = {
  before_dpo_likelihood_per_token: "Model before this stage: likelier response, per token",
  before_dpo_likelihood: "Model before this stage: likelier response",
  longer_wins: "Rule: the longer response wins",
};
const FIGURES = [
  ["reward_accuracy", "Accuracy", (value) => percent(value), "Share of rows whose chosen response gets the higher reward."],
  ["reward_margin", "Margin", signed, "Reward of the chosen minus that of the rejected response."],
  ["token_accuracy", "Token accuracy", (value) => percent(value), "Share of response tokens that are the likeliest ones where they stand."],
  ["perplexity", "Perplexity", metric, "How many tokens the model wavers between, at the mean; 1 is certainty."],
  ["loss", "Loss", metric, "What training lowers."],
];

export class ResultsCard {
  #shown = "";

  constructor(jobId, signal) {
    this.address = path("jobs", jobId, "artifact", "files", "evaluation.json");
    this.signal = signal;
    this.body = h("div.stack");
    this.element = card("Results", this.body);
    this.element.hidden = true;
  }

  /** Show the results of the job; baselines come from the published evaluation, once it is there. */
  async show(job) {
    const { results, artifact } = job;
    const text = JSON.stringify([results ?? null, Boolean(artifact)]);
    if (text === this.#shown || !results) return;
    this.#shown = text;
    this.element.hidden = false;
    fill(this.body, view(results, null));
    const evaluation = artifact ? await this.#readEvaluation() : null;
    if (evaluation) fill(this.body, view(results, evaluation.held_out));
  }

  async #readEvaluation() {
    try {
      const { files } = await get(this.address.replace("/files/evaluation.json", ""), { signal: this.signal });
      return files.some((file) => file.path === "evaluation.json") ? await get(this.address, { signal: this.signal }) : null;
    } catch (error) {
      if (error.name === "AbortError") return null;
      fill(this.body, h("p.hint", null, `Baselines could not be read: ${error.message}`));
      return null;
    }
  }
}

function view({ held_out: held, training, step }, evaluation) {
  if (!held) return [nothingHeldOut(), training ? trainingView(training) : null];
  return [
    verdict(held, evaluation),
    table(["", [term("held out", "Held out"), `, ${plural(held.num_rows, "row")}`], term("interval", "95 % interval"), "Training"], FIGURES.filter(([name]) => held[name]).map((figure) => figureRow(figure, held, training))),
    evaluation?.baselines ? baselinesView(evaluation, held.reward_accuracy) : null,
    h(
      "p.hint",
      null,
      `Published: the policy of step ${step}. Held-out rows were not trained on. `,
      training ? `Training: mean over epoch ${training.epoch}, each row as it was when it was trained on; it is no result.` : "",
    ),
  ];
}

function nothingHeldOut() {
  return notice(
    "warning",
    h("strong", null, "Nothing was held out"),
    h("p", null, "So nobody can tell whether the model has learnt or only knows its training rows by heart. Hold out a share of the dataset, or a dataset."),
  );
}

/** What the figures mean, in a sentence. */
function verdict(held, evaluation) {
  const better = evaluation?.better_than?.before_dpo_likelihood_per_token ?? evaluation?.better_than?.before_dpo_likelihood;
  if (held.num_rows < FEW_ROWS)
    return notice(
      "warning",
      h("strong", null, `Only ${plural(held.num_rows, "held-out row")}: too few to tell`),
      h("p", null, `With fewer than ${FEW_ROWS}, one row more or less moves every figure. Hold out more.`),
    );
  const accuracy = held.reward_accuracy;
  if (!accuracy) return null;
  if (better && better.low > 0)
    return notice("check", h("strong", null, `Better than before by ${points(better)} points of accuracy`));
  if (better)
    return notice(
      "warning",
      h("strong", null, "No clear gain over the model before this stage"),
      h("p", null, `The difference in accuracy is ${points(better)} points: chance alone may give that.`),
    );
  if (accuracy.low !== null && accuracy.low > 0.5)
    return notice("check", h("strong", null, `Prefers the chosen response in ${percent(accuracy.value, 0)} of held-out rows`));
  return notice("warning", h("strong", null, "No better than chance on held-out rows"));
}

function points({ value, low, high }) {
  const text = (share) => (100 * share).toFixed(1);
  return `${text(value)} (${text(low)} to ${text(high)})`;
}

function figureRow([name, label, format, about], held, training) {
  const figure = held[name];
  const interval = figure.low === null ? "–" : `${format(figure.low)} to ${format(figure.high)}`;
  const trained = training?.[name] ?? null;
  return tableRow(
    h("span.term", { title: about }, label),
    h("strong", null, format(figure.value)),
    interval,
    h("span.muted", null, trained === null ? "–" : format(trained)),
  );
}

function trainingView(training) {
  const rows = FIGURES.filter(([name]) => (training[name] ?? null) !== null).map(([name, label, format]) =>
    tableRow(label, format(training[name])),
  );
  return table(["", `Training, mean over epoch ${training.epoch}`], rows);
}

function baselinesView({ baselines, better_than: better }, policy) {
  const shown = ({ value, low, high }) => `${percent(value)} (${percent(low, 0)} to ${percent(high, 0)})`;
  const rows = Object.entries(BASELINES)
    .filter(([name]) => name in baselines)
    .map(([name, label]) => tableRow(label, shown(baselines[name]), points(better[name])));
  if (!rows.length) return null;
  return [
    h("h3", null, "Beside what needs no training"),
    table(["Who judges the same rows", "Accuracy", "Policy better by, points"], [tableRow(h("strong", null, "The policy"), shown(policy), "–"), ...rows]),
  ];
}
