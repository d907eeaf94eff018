// Two or more jobs: what they ended with, their curves in one plot each, and where their settings differ.

import { get, path } from "../api.js";
import { Chart } from "../charts/chart.js";
import { align, Curves } from "../charts/curves.js";
import { ChartSettings } from "../charts/settings.js";
import { fill, h } from "../dom.js";
import { pathName } from "../form/layout.js";
import { between, count, metric, percent, setting, signed } from "../format.js";
import { poll } from "../live.js";
import { card, empty, FINAL, jobBadge, loading, MAX_COMPARED, notice, table, tableRow } from "../parts.js";

const MAX_POINTS = 1000;
const POLL_MS = 2000;
const TYPING_MS = 250;
const METRICS = [
  ["dpo/rewards/margins", "Reward margin"],
  ["dpo/loss", "DPO loss"],
  ["dpo/rewards/accuracies", "Reward accuracy"],
  ["dpo/rewards/chosen", "Chosen reward"],
  ["dpo/rewards/rejected", "Rejected reward"],
  ["dpo/logps/chosen", "Chosen log-probability"],
  ["dpo/gradient_weight", "Gradient weight"],
  ["dpo/grad_norm", "Gradient norm"],
  ["reward/rewards/margins", "Margin of the reward model"],
  ["reward/loss", "Loss of the reward model"],
  ["reward/rewards/accuracies", "Accuracy of the reward model"],
  ["reward/rewards/calibration_error", "Calibration error"],
  ["sft/loss", "SFT loss"],
  ["sft/mean_token_accuracy", "Token accuracy"],
];
const SHOWN_FIRST = ["rewards/margins", "rewards/accuracies"];
const AXES = [
  ["step", "Step"],
  ["epoch", "Epoch"],
  ["seconds", "Seconds since the stage began"],
];
/** Groups of settings that a job has or has not. */
const SWITCHED = new Set(["sft", "lora", "early_stopping"]);
const NOT_COMPARED = new Set(["name", "metadata", "priority", "sample_prompts", "reuse"]);

export async function open(main, { query, signal, fail }) {
  const asked = [...new Set((query.get("jobs") ?? "").split(",").filter(Boolean))];
  const ids = asked.slice(0, MAX_COMPARED);
  main.append(loading("jobs"));
  const jobs = await Promise.all(ids.map((id) => get(path("jobs", id), { signal })));
  const body = h("div.stack");
  fill(
    main,
    h(
      "div.title-row",
      null,
      h("h1", { tabindex: "-1" }, "Compare"),
      jobs.length > 1 ? h("a.button", { href: `#/comparison?jobs=${asked.join(",")}` }, "Accuracy and divergence") : null,
    ),
    asked.length > MAX_COMPARED
      ? notice("warning", `At most ${MAX_COMPARED} jobs are compared; the last ${asked.length - MAX_COMPARED} of ${asked.length} are left out.`)
      : null,
    h("div.columns", null, body, picker(jobs, signal)),
  );
  if (jobs.length) await showPlots(body, jobs, signal, fail);
  else fill(body, empty("Choose jobs to compare", "Search and tick up to eight jobs; their curves are drawn together, live."));
}

/** The jobs that are compared, and others by search. */
function picker(jobs, signal) {
  const ids = jobs.map(({ id }) => id);
  const go = (next) => (location.hash = `#/compare?jobs=${next.join(",")}`);
  const row = (job) => {
    const place = ids.indexOf(job.id);
    const isFull = place < 0 && ids.length >= MAX_COMPARED;
    const box = h("input", { type: "checkbox", checked: place >= 0, disabled: isFull });
    box.addEventListener("change", () => go(box.checked ? [...ids, job.id] : ids.filter((id) => id !== job.id)));
    const swatch = place >= 0 ? h("span.swatch", { class: `c-s${place + 1}` }) : null;
    return h("label.check", null, box, swatch, h("span", null, job.name ?? job.id, " ", jobBadge(job)));
  };
  const found = h("div.stack", { role: "group", "aria-label": "Other jobs" });
  const search = h("input", { type: "search", "aria-label": "Search jobs to compare", placeholder: "Search jobs" });
  const ask = async () => {
    const page = await get("/jobs", { query: { search: search.value.trim(), limit: 20 }, signal });
    fill(found, page.data.filter(({ id }) => !ids.includes(id)).map(row));
  };
  let timer = null;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => ask().catch(() => {}), TYPING_MS);
  });
  ask().catch(() => {});
  return card(
    "Jobs",
    h("p.hint", null, `Up to ${MAX_COMPARED}.`),
    h("div.stack", { role: "group", "aria-label": "Jobs that are compared" }, jobs.map(row)),
    search,
    found,
  );
}

async function showPlots(body, jobs, signal, fail) {
  const held = jobs.map((job) => ({ job, curves: new Curves(), last: 0, isOver: false }));
  const settings = new ChartSettings();
  const stages = new Set(jobs.flatMap((job) => job.stages.map(({ name }) => name)));
  const offered = METRICS.filter(([which]) => stages.has(which.split("/")[0]));
  const axis = select("axis", AXES);
  const split = select("split", [
    ["both", "Train and validation"],
    ["train", "Train"],
    ["validation", "Validation"],
  ]);
  const compared = ["dpo", "reward"].filter((stage) => stages.has(stage));
  const shown = new Set(compared.flatMap((stage) => SHOWN_FIRST.map((name) => `${stage}/${name}`)));
  if (!compared.length) ["sft/loss", "sft/mean_token_accuracy"].forEach((which) => shown.add(which));
  const holders = new Map();
  const plots = h("div.charts");
  const draw = () => {
    for (const [which, label] of offered) {
      if (!shown.has(which)) continue;
      const holder = holders.get(which) ?? h("div");
      holders.set(which, holder);
      drawPlot(holder, held, { which, label, axis: axis.value, split: split.value, settings }, signal);
    }
    plots.replaceChildren(...offered.filter(([which]) => shown.has(which)).map(([which]) => holders.get(which)));
  };
  const rebuild = () => {
    for (const holder of holders.values()) holder.plot = null;
    draw();
  };
  for (const control of [axis, split]) control.addEventListener("change", rebuild);
  const curves = offered.map(([which, label]) => {
    const box = h("input", { type: "checkbox", checked: shown.has(which) });
    box.addEventListener("change", () => {
      if (box.checked) shown.add(which);
      else shown.delete(which);
      draw();
    });
    return h("label.check", null, box, label);
  });
  const choice = h("fieldset", null, h("legend", null, "Curves"), h("div.choices", null, curves));
  fill(
    body,
    finalTable(jobs),
    card(null, h("div.two", null, field("X axis", axis), field("Split", split)), choice, settings.controls()),
    plots,
    differences(jobs),
  );
  const refresh = async () => {
    const news = await Promise.all(held.map((item) => readNew(item, signal)));
    if (news.some(Boolean)) draw();
    return held.some(({ isOver }) => !isOver);
  };
  draw();
  if (await refresh()) poll(signal, POLL_MS, refresh).catch(fail);
}

async function readNew(item, signal) {
  if (item.isOver) return false;
  const query = item.last ? { after: item.last } : { max_points: MAX_POINTS };
  const page = await get(path("jobs", item.job.id, "metrics"), { query, signal });
  if (page.reset) item.curves.clear();
  item.curves.add(page.points);
  item.last = page.last_seq;
  item.isOver = FINAL.has(page.status) && !page.has_more;
  return page.points.length > 0 || page.reset;
}

function drawPlot(holder, held, { which, label, axis, split, settings }, signal) {
  const [stage, ...rest] = which.split("/");
  const name = rest.join("/");
  const splits = split === "both" ? ["train", "validation"] : [split];
  const lines = held
    .flatMap(({ job, curves }, index) =>
      splits.map((part) => ({ job, index, part, points: pointsOf(curves, stage, part, name) })),
    )
    .filter(({ points }) => points.length);
  if (!lines.length) {
    holder.plot = null;
    fill(holder, empty(`${label}: nothing to draw yet`, "None of these jobs has points of this curve so far."));
    return;
  }
  const shape = lines.map(({ index, part }) => `${index}${part}`).join();
  if (holder.plot?.shape !== shape) holder.plot = makePlot(holder, lines, { label, name, axis, settings }, shape, signal);
  const columns = align(
    lines.map(({ points }) => points.map((point) => [along(point, axis, points[0]), point.values[name]])),
  );
  holder.plot.chart.show(columns);
}

/** Points with a value. At step 0 policy and reference are one, so that every pair is a tie, which is no hit. */
function pointsOf(curves, stage, split, name) {
  const from = name === "rewards/accuracies" ? 1 : 0;
  return curves.of(stage, split).filter(({ values, step }) => name in values && step >= from);
}

function makePlot(holder, lines, { label, name, axis, settings }, shape, signal) {
  const series = lines.map(({ job, index, part }) => ({
    label: part === "train" ? (job.name ?? job.id) : `${job.name ?? job.id}, validation`,
    color: `s${index + 1}`,
    dash: part !== "train",
    points: part !== "train",
  }));
  const isShare = name.endsWith("accuracies") || name.endsWith("accuracy");
  const chart = new Chart(series, {
    title: label,
    height: 300,
    settings,
    xLabel: axis === "step" ? null : axis === "epoch" ? "epoch" : "second",
    isWholeX: axis === "step",
    range: isShare ? () => [0, 1.02] : undefined,
    format: isShare ? (value) => percent(value) : metric,
  }).attach(signal);
  fill(holder, chart.element);
  return { chart, shape };
}

function along(point, axis, first) {
  if (axis === "step") return point.step;
  if (axis === "epoch") return point.epoch;
  return (new Date(point.at) - new Date(first.at)) / 1000;
}

const FINAL_FIGURES = [
  ["reward_accuracy", "Accuracy", (value) => percent(value)],
  ["reward_margin", "Margin", signed],
  ["token_accuracy", "Token accuracy", (value) => percent(value)],
  ["perplexity", "Perplexity", metric],
  ["loss", "Loss", metric],
];

/** Held-out results with intervals, side by side. */
function finalTable(jobs) {
  const heldOut = jobs.map(({ results }) => results?.held_out ?? null);
  const shown = FINAL_FIGURES.filter(([name]) => heldOut.some((held) => held?.[name]));
  const cell = (figure, format) => {
    if (!figure) return "–";
    const { value, low, high } = figure;
    return [format(value), low === null ? null : h("div.hint", null, `${format(low)} to ${format(high)}`)];
  };
  const heads = ["Job", "Held-out rows", ...shown.map(([, label]) => label), "Took"];
  const rows = jobs.map((job, index) =>
    tableRow(
      [h("span", { class: `c-s${index + 1}`, "aria-hidden": "true" }, "■ "), h("a", { href: `#${path("jobs", job.id)}` }, job.name ?? job.id)],
      heldOut[index] ? count(heldOut[index].num_rows) : "–",
      ...shown.map(([name, , format]) => cell(heldOut[index]?.[name], format)),
      between(job.started_at, job.finished_at),
    ),
  );
  const hint = "Figures of the published policies, with 95 % intervals. Jobs that hold out different rows are not comparable by them.";
  return card("Final figures", h("p.hint", null, hint), table(heads, rows));
}

/** All settings in which the jobs differ. */
function differences(jobs) {
  const flat = jobs.map(({ spec }) => flatten(spec));
  for (const values of flat) for (const name of SWITCHED) if (values[name] === null) values[name] = "no";
  const shown = (values, name) => (name in values ? setting(values[name]) : "–");
  const names = [...new Set(flat.flatMap((values) => Object.keys(values)))];
  const differing = names.filter((name) => new Set(flat.map((values) => shown(values, name))).size > 1);
  if (jobs.length < 2)
    return card("Settings", h("p.muted", null, "Choose another job to see where their settings differ."));
  if (!differing.length) return card("Settings", h("p.muted", null, "These jobs have the same settings."));
  return card(
    "Settings that differ",
    table(
      ["Setting", ...jobs.map((job, index) => [h("span", { class: `c-s${index + 1}`, "aria-hidden": "true" }, "■ "), job.name ?? job.id])],
      differing.map((name) => tableRow(h("span.muted", { title: name }, pathName(`/${name.replaceAll(".", "/")}`)), ...flat.map((values) => shown(values, name)))),
    ),
  );
}

function flatten(spec, prefix = "") {
  const found = {};
  for (const [name, value] of Object.entries(spec)) {
    if (!prefix && NOT_COMPARED.has(name)) continue;
    if (value && typeof value === "object" && !Array.isArray(value)) {
      if (!prefix && SWITCHED.has(name)) found[name] = "yes";
      Object.assign(found, flatten(value, `${prefix}${name}.`));
    } else found[prefix + name] = value === "skip" ? "no" : value;
  }
  return found;
}

function select(id, options) {
  return h(
    "select",
    { id },
    options.map(([value, label]) => h("option", { value }, label)),
  );
}

function field(label, control) {
  return h("div.field", null, h("label", { for: control.id }, label), control);
}
