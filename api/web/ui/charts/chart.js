// One chart: uPlot, with stage bands, a legend that can be read and worked by keyboard, and colours of the page's theme.

import { fill, h } from "../dom.js";
import { metric } from "../format.js";
import uPlot from "../vendor/uplot/uplot.js";
import { areAllPositive, ChartSettings, smoothed } from "./settings.js";
import { chartTools } from "./tools.js";

const HEIGHT = 220;
const CURSORS = uPlot.sync("charts");
const DASH = [5, 4];
const LINEAR = uPlot.paths.linear();
/** Fewer validation points than this are points without a line, which would pretend to know what lies between. */
const FEW_POINTS = 5;
const FULL_SCREEN_REST = 190;
/** Room above the plot for the names of stages, in pixels. */
const HEAD_ROOM = 24;
const STAGE_NAMES = { sft: "SFT", dpo: "DPO", reward: "Reward" };

/**
 * series: [{label, color, dash, points, width, fill}], `color` names a custom property of the page.
 * options: {title, about, bands: [series indices], range, format, lines: [{at, label}], xLabel, settings}
 */
export class Chart {
  #columns = [[]];
  #drawn = [[]];
  #stages = [];
  #plot = null;
  #hidden = new Set();
  #size = 0;

  constructor(series, options) {
    this.series = series;
    this.options = options;
    this.settings = options.settings ?? new ChartSettings();
    this.height = options.height ?? HEIGHT;
    this.format = options.format ?? metric;
    this.holder = h("div.plot", {
      tabindex: "0",
      role: "img",
      "aria-roledescription": "chart",
      onkeydown: (event) => this.#onKey(event),
      onblur: () => this.#plot?.setCursor({ left: -10, top: -10 }),
    });
    this.where = h("span.where");
    this.values = series.map(() => h("span.value", null, "–"));
    this.keys = series.map((item, index) => this.#legendItem(item, index));
    this.element = h(
      "figure.chart",
      null,
      h(
        "figcaption",
        null,
        h("h2", null, options.title),
        h("span.chart-end", null, this.where, chartTools(this)),
        options.about ? h("p.hint", null, options.about) : null,
      ),
      h("div.legend", null, this.keys),
      this.holder,
    );
  }

  /** `stages` are bands on the x axis. What a reader has zoomed into stays in view. */
  show(columns, stages = []) {
    this.#columns = columns;
    this.#drawn = this.#drawnColumns();
    this.#stages = stages;
    this.#showValues(null);
    this.keys.forEach((key, index) => (key.hidden = countPoints(columns[index + 1]) === 0));
    this.holder.setAttribute("aria-label", this.#summary());
    if (!this.#plot) this.#build();
    else if (this.#isLog !== this.#wantsLog() || this.#headed !== this.#hasHeads()) this.#build();
    else {
      this.#plot.setData(this.#drawn, false);
      this.follow(this.settings.range);
    }
  }

  /** As recorded: [x, one column per series]. */
  get columns() {
    return this.#columns;
  }

  get canvas() {
    return this.#plot.ctx.canvas;
  }

  /** The series with points that are not hidden. */
  drawnSeries() {
    return this.series.filter((_, index) => !this.#hidden.has(index) && !this.keys[index].hidden);
  }

  /** Draw anew, with other settings. */
  redraw() {
    if (!this.#plot) return;
    this.#drawn = this.#drawnColumns();
    this.#showValues(null);
    this.#build();
  }

  /** Show these steps {min, max}; null: all. */
  follow(range) {
    const [xs] = this.#columns;
    if (!this.#plot || !xs.length) return;
    this.#plot.setScale("x", range ?? { min: xs[0], max: xs.at(-1) });
  }

  #isLog = false;
  #headed = false;

  #wantsLog() {
    return this.settings.isLog && areAllPositive(this.#columns);
  }

  #drawnColumns() {
    const [xs, ...rest] = this.#columns;
    const weightOf = (index) => (this.series[index].points ? 0 : this.settings.smoothing);
    return [xs, ...rest.map((column, index) => smoothed(column, weightOf(index)))];
  }

  /** Draw while `signal` lasts: follow the page's width and its colours. */
  attach(signal) {
    const sizes = new ResizeObserver(() => this.#resize());
    sizes.observe(this.holder);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => this.#build();
    theme.addEventListener("change", repaint);
    const grow = () => this.#setHeight();
    this.element.addEventListener("fullscreenchange", grow);
    this.settings.charts.add(this);
    signal.addEventListener("abort", () => {
      this.settings.charts.delete(this);
      sizes.disconnect();
      theme.removeEventListener("change", repaint);
      this.#plot?.destroy();
    });
    return this;
  }

  #legendItem({ label, color, dash }, index) {
    const button = h(
      "button.key",
      { type: "button", "aria-pressed": "true", title: `Show or hide ${label}` },
      h("span.swatch", { class: `c-${color}${dash ? " dashed" : ""}`, "aria-hidden": "true" }),
      label,
      this.values[index],
    );
    button.addEventListener("click", () => {
      const isShown = this.#hidden.has(index);
      if (isShown) this.#hidden.delete(index);
      else this.#hidden.add(index);
      button.setAttribute("aria-pressed", String(isShown));
      this.#plot?.setSeries(index + 1, { show: isShown });
    });
    return button;
  }

  #build() {
    this.#plot?.destroy();
    const colors = getComputedStyle(document.documentElement);
    const color = (name) => colors.getPropertyValue(`--${name}`).trim();
    const axis = {
      stroke: color("muted"),
      grid: { stroke: color("grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    this.#size = this.#width();
    this.#isLog = this.#wantsLog();
    this.#headed = this.#hasHeads();
    this.#plot = new uPlot(
      {
        width: this.#size,
        height: this.height,
        padding: [this.#hasHeads() ? HEAD_ROOM : null, null, null, null],
        legend: { show: false },
        cursor: { drag: { setScale: false }, sync: { key: CURSORS.key, scales: ["x", null] }, y: false, points: { size: 7 } },
        scales: {
          x: { time: false, range: (plot, min, max) => (min === max ? [min, min + 1] : [min, max]) },
          y: this.#isLog ? { distr: 3 } : { range: this.options.range ?? niceRange },
        },
        axes: [
          {
            ...axis,
            size: 28,
            splits: (plot, index, min, max, step) => this.#xTicks(min, max, step),
            values: (plot, ticks) => ticks.map((x) => this.#xName(x)),
          },
          { ...axis, size: 52, values: this.#isLog ? undefined : (plot, ticks) => ticks.map((value) => tickName(value, ticks)) },
        ],
        series: [{}, ...this.series.map((item, index) => this.#lineOf(item, color(item.color), index))],
        bands: this.options.bands?.map((pair) => ({
          series: pair,
          fill: `${color(this.series[pair[0] - 1].color)}26`,
        })),
        hooks: {
          drawAxes: [(plot) => this.#drawStages(plot, color)],
          setCursor: [(plot) => this.#showValues(plot.cursor.idx)],
          setSelect: [(plot) => this.#onSelect(plot)],
        },
      },
      this.#drawn,
      this.holder,
    );
    if (this.settings.range) this.follow(this.settings.range);
    this.#plot.over.addEventListener("dblclick", () => this.settings.zoom(null));
  }

  /** Stages are named where there are several. */
  #hasHeads() {
    return this.#stages.length > 1;
  }

  #onSelect(plot) {
    const { left, width } = plot.select;
    if (width > 0) this.settings.zoom({ min: plot.posToVal(left, "x"), max: plot.posToVal(left + width, "x") });
  }

  #setHeight() {
    const isFull = document.fullscreenElement === this.element;
    this.height = isFull ? Math.max(HEIGHT, innerHeight - FULL_SCREEN_REST) : (this.options.height ?? HEIGHT);
    this.#plot?.setSize({ width: this.#width(), height: this.height });
  }

  #lineOf({ label, dash, points, width }, stroke, index) {
    return {
      label,
      stroke,
      width: width ?? 1.75,
      dash: dash ? DASH : undefined,
      show: !this.#hidden.has(index),
      spanGaps: false,
      paths: (plot, place, from, to) =>
        points && countPoints(plot.data[place]) < FEW_POINTS ? null : LINEAR(plot, place, from, to),
      points: { show: (plot, seriesIndex) => points || countPoints(plot.data[seriesIndex]) < 3, size: 5, fill: stroke },
    };
  }

  #resize() {
    const width = this.#width();
    if (!this.#plot || width === this.#size || width === 0) return;
    this.#size = width;
    this.#plot.setSize({ width, height: this.height });
  }

  #width() {
    return Math.floor(this.holder.clientWidth) || 300;
  }

  #stageAt(x) {
    return this.#stages.findLast(({ from }) => x >= from) ?? this.#stages[0];
  }

  /** Steps count from the start of each stage. */
  #xTicks(min, max, step) {
    if (!this.#stages.length) return multiples(0, min, max, this.options.isWholeX ? Math.max(1, Math.round(step)) : step);
    return this.#stages.flatMap(({ from, to }, index) => {
      const isLast = index === this.#stages.length - 1;
      return multiples(from, Math.max(min, from), isLast ? max : Math.min(max, to - step / 3), step);
    });
  }

  #xName(x) {
    const stage = this.#stageAt(x);
    return metricStep(stage ? x - stage.from : x);
  }

  #drawStages(plot, color) {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, 0, bbox.width, bbox.top + bbox.height);
    ctx.clip();
    ctx.font = `600 ${11 * scale}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    for (const [index, { stage, from, to }] of this.#stages.entries()) {
      const left = plot.valToPos(from - 0.5, "x", true);
      const right = index === this.#stages.length - 1 ? bbox.left + bbox.width : plot.valToPos(to + 0.5, "x", true);
      ctx.fillStyle = color(`band-${stage}`);
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      ctx.fillStyle = color("muted");
      ctx.textBaseline = "bottom";
      if (this.#hasHeads()) ctx.fillText(STAGE_NAMES[stage], Math.max(left, bbox.left) + 2 * scale, bbox.top - 5 * scale);
    }
    for (const line of this.options.lines ?? []) this.#drawLine(plot, line, color);
    ctx.restore();
  }

  #drawLine(plot, { at, label, stage }, color) {
    const { ctx, bbox } = plot;
    const { min, max } = plot.scales.y;
    const band = stage ? this.#stages.find((item) => item.stage === stage) : null;
    if (at <= min || at >= max || (stage && !band)) return;
    const y = Math.round(plot.valToPos(at, "y", true));
    const left = band ? plot.valToPos(band.from, "x", true) : bbox.left;
    ctx.strokeStyle = ctx.fillStyle = color("muted");
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom";
    ctx.fillText(label, bbox.left + bbox.width - 6 * devicePixelRatio, y - 2 * devicePixelRatio);
    ctx.textAlign = "left";
  }

  #showValues(index) {
    const [xs] = this.#columns;
    const x = index === null || index === undefined ? null : xs[index];
    const stage = x === null ? null : this.#stageAt(x);
    const { xLabel } = this.options;
    fill(
      this.where,
      x === null
        ? ""
        : xLabel
          ? `${xLabel} ${this.options.isWholeX ? metricStep(x) : metric(x)}`
          : `${stage ? `${STAGE_NAMES[stage.stage]} ` : ""}step ${metricStep(stage ? x - stage.from : x)}`,
    );
    this.series.forEach((_, place) => {
      const column = this.#drawn[place + 1] ?? [];
      const value = x === null ? column.findLast((item) => item !== undefined) : column[index];
      fill(this.values[place], this.format(value));
    });
  }

  #summary() {
    const parts = this.series
      .map(({ label }, index) => `${label} ${this.values[index].textContent}`)
      .filter((_, index) => !this.keys[index].hidden);
    return `${this.options.title}. Newest values: ${parts.join(", ")}. Arrow keys read the curve.`;
  }

  #onKey(event) {
    const last = this.#columns[0].length - 1;
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.#plot.setCursor({ left: -10, top: -10 });
    if (move === undefined || last < 0) return;
    event.preventDefault();
    const from = this.#plot.cursor.idx ?? (move > 0 ? -1 : last + 1);
    const index = Math.min(last, Math.max(0, from + move));
    this.#plot.setCursor({ left: this.#plot.valToPos(this.#columns[0][index], "x"), top: this.height / 3 });
  }
}

function countPoints(column) {
  return column.reduce((count, value) => count + (value === null || value === undefined ? 0 : 1), 0);
}

function multiples(from, min, max, step) {
  const ticks = [];
  for (let x = from + Math.ceil((min - from) / step) * step; x <= max; x += step) ticks.push(x);
  return ticks;
}

function metricStep(x) {
  return Number.isInteger(x) ? String(x) : x.toFixed(2).replace(/\.?0+$/, "");
}

function tickName(value, ticks) {
  if (value === 0) return "0";
  const step = Math.abs(ticks[1] - ticks[0]) || Math.abs(value);
  if (Math.abs(value) >= 1e5 || step < 1e-5) return value.toExponential(0);
  return value.toFixed(Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))));
}

/** A little air above and below; never a range of nothing. */
function niceRange(plot, min, max) {
  if (min === null) return [0, 1];
  const air = (max - min || Math.abs(max) || 1) * 0.08;
  return [min - air, max + air];
}
