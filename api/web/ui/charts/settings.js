// What all charts of a page share: smoothing, the axis, and the range that is looked at.

import { h } from "../dom.js";

const MAX_SMOOTHING = 0.98;

/** Charts join by `charts.add`; every change draws them anew. */
export class ChartSettings {
  charts = new Set();
  smoothing = 0;
  isLog = false;
  range = null;

  /** Controls of a page above its charts. */
  controls() {
    const value = h("output", { for: "smoothing" }, "off");
    const smoothing = h("input", { type: "range", id: "smoothing", min: "0", max: String(MAX_SMOOTHING), step: "0.02", value: "0" });
    smoothing.addEventListener("input", () => {
      this.smoothing = Number(smoothing.value);
      value.textContent = this.smoothing ? this.smoothing.toFixed(2) : "off";
      this.#redraw();
    });
    const log = h("input", { type: "checkbox", id: "log-axis" });
    log.addEventListener("change", () => {
      this.isLog = log.checked;
      this.#redraw();
    });
    this.reset = h("button.small", { type: "button", hidden: true, onclick: () => this.zoom(null) }, "Show all steps");
    return h(
      "div.chart-controls",
      { role: "group", "aria-label": "All charts" },
      h("label", { for: "smoothing", title: "Weight of the points before, in a mean that forgets" }, "Smoothing"),
      smoothing,
      value,
      h("label.check", { for: "log-axis", title: "Where all values are above 0" }, log, "Logarithmic axis"),
      this.reset,
    );
  }

  /** All charts show the same steps; null: all of them. */
  zoom(range) {
    this.range = range;
    if (this.reset) this.reset.hidden = range === null;
    for (const chart of this.charts) chart.follow(range);
  }

  #redraw() {
    for (const chart of this.charts) chart.redraw();
  }
}

/** Mean of a column's values that forgets older ones; without the pull of an arbitrary start. */
export function smoothed(column, weight) {
  if (!weight) return column;
  let sum = 0;
  let total = 0;
  return column.map((value) => {
    if (value === null || value === undefined) return value;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** Values that a logarithmic axis can show are all above 0. */
export function areAllPositive(columns) {
  return columns.slice(1).every((column) => column.every((value) => value === null || value === undefined || value > 0));
}
