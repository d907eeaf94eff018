// Curves over rounds: win rates with their intervals, and how far the policy is from the first.

import { Chart } from "../charts/chart.js";
import { ChartSettings } from "../charts/settings.js";
import { h } from "../dom.js";
import { metric, percent } from "../format.js";

const RATES = [
  { label: "Upper end", color: "margin", width: 1 },
  { label: "Against the first", color: "margin", width: 2.25, points: true },
  { label: "Lower end", color: "margin", width: 1 },
  { label: "Against the one before", color: "chosen", dash: true, points: true },
];
const DRIFT = [
  { label: "Upper end", color: "loss", width: 1 },
  { label: "KL", color: "loss", width: 2.25, points: true },
  { label: "Lower end", color: "loss", width: 1 },
];
/** Standard errors on each side of the estimate that hold 95 %. */
const Z_95 = 1.96;

export class RoundCurves {
  constructor(signal) {
    const settings = new ChartSettings();
    const shared = { bands: [[1, 3]], xLabel: "round", isWholeX: true, settings };
    this.rates = new Chart(RATES, {
      ...shared,
      title: "Win rate",
      about: "Of each round's policy on held-out prompts. Between the ends lies the 95 % interval of the win rate against the first policy.",
      lines: [{ at: 0.5, label: "even" }],
      range: () => [0, 1.02],
      format: (value) => percent(value),
    }).attach(signal);
    this.drift = new Chart(DRIFT, {
      ...shared,
      title: "Drift from the first policy",
      about: "KL divergence in nats per answer, on the policy's own answers to held-out prompts, with its 95 % interval.",
      lines: [{ at: 0, label: "" }],
      format: metric,
    }).attach(signal);
    this.element = h("div.charts", null, this.rates.element, this.drift.element);
  }

  show(rounds) {
    const compared = rounds.filter(({ win_rate_first: rate }) => rate);
    this.rates.element.hidden = !compared.length;
    if (compared.length)
      this.rates.show([
        compared.map(({ number }) => number),
        compared.map(({ win_rate_first: rate }) => rate.high),
        compared.map(({ win_rate_first: rate }) => rate.value),
        compared.map(({ win_rate_first: rate }) => rate.low),
        compared.map(({ win_rate: rate }) => rate?.value ?? null),
      ]);
    const measured = rounds.filter(({ drift }) => drift);
    this.drift.element.hidden = !measured.length;
    const end = ({ drift }, side) => (drift.standard_error === null ? null : drift.kl + side * Z_95 * drift.standard_error);
    if (measured.length)
      this.drift.show([
        measured.map(({ number }) => number),
        measured.map((round) => end(round, 1)),
        measured.map(({ drift }) => drift.kl),
        measured.map((round) => end(round, -1)),
      ]);
    this.element.hidden = !compared.length && !measured.length;
  }
}
