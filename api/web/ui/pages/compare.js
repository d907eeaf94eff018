// Two or more jobs in one plot, and where their settings differ.

import { get, listAll, path } from "../api.js";
import { Chart } from "../charts/chart.js";
import { align, Curves } from "../charts/curves.js";
import { fill, h } from "../dom.js";
import { metric, percent, setting } from "../format.js";
import { poll } from "../live.js";
import { card, empty, FINAL, jobBadge, loading, table, tableRow } from "../parts.js";

const MAX_JOBS = 8;
const MAX_POINTS = 1000;
const POLL_MS = 2000;
const METRICS = [
  ["dpo/rewards/margins", "Reward margin"],
  ["dpo/loss", "DPO loss"],
  ["dpo/rewards/accuracies", "Reward accuracy"],
  ["dpo/rewards/chosen", "Chosen reward"],
  ["dpo/rewards/rejected", "Rejected reward"],
  ["dpo/logps/chosen", "Chosen log-probability"],
  ["dpo/gradient_weight", "Gradient weight"],
  ["dpo/grad_norm", "Gradient norm"],
  ["sft/loss", "SFT loss"],
  ["sft/mean_token_accuracy", "SFT token accuracy"],
];
const AXES = [
  ["step", "Step"],
  ["epoch", "Epoch"],
  ["seconds", "Seconds since the stage began"],
];
/** Groups of settings that a job has or has not. */
const SWITCHED = new Set(["sft", "lora", "early_stopping"]);
const NOT_COMPARED = new Set(["name", "metadata", "priority", "sample_prompts", "reuse"]);

export async function open(main, { query, signal, fail }) {
  const ids = [...new Set((query.get("jobs") ?? "").split(",").filter(Boolean))].slice(0, MAX_JOBS);
  main.append(loading("jobs"));
  const all = await listAll("/jobs", { signal, pages: 2 });
  const jobs = await Promise.all(
    ids.map((id) => all.find((job) => job.id === id) ?? get(path("jobs", id), { signal })),
  );
  const choices = [...jobs, ...all.filter((job) => !ids.includes(job.id))];
  const body = h("div.stack");
  fill(
    main,
    h("div.title-row", null, h("h1", { tabindex: "-1" }, "Compare")),
    h("div.columns", null, body, picker(choices, ids)),
  );
  if (!all.length)
    fill(
      body,
      empty(
        "No jobs to compare",
        "Start two jobs that differ in one setting, such as beta, and see them here in one plot.",
        h("a.button.primary", { href: "#/new" }, "New job"),
      ),
    );
  else if (!jobs.length)
    fill(
      body,
      empty("Choose jobs to compare", "Tick up to eight jobs in the list; their curves are drawn in one plot, live."),
    );
  else await showPlot(body, jobs, signal, fail);
}

function picker(choices, ids) {
  const toggle = (id, isOn) => {
    const next = isOn ? [...ids, id] : ids.filter((item) => item !== id);
    location.hash = `#/compare?jobs=${next.join(",")}`;
  };
  return card(
    "Jobs",
    h("p.hint", null, `Up to ${MAX_JOBS}.`),
    h(
      "div.stack",
      { role: "group", "aria-label": "Jobs to compare" },
      choices.map((job) => {
        const place = ids.indexOf(job.id);
        const box = h("input", {
          type: "checkbox",
          checked: place >= 0,
          disabled: place < 0 && ids.length >= MAX_JOBS,
          onchange: () => toggle(job.id, box.checked),
        });
        return h(
          "label.check",
          null,
          box,
          place >= 0 ? h("span.swatch", { class: `c-s${place + 1}` }) : null,
          h("span", null, job.name ?? job.id, " ", jobBadge(job)),
        );
      }),
    ),
  );
}

async function showPlot(body, jobs, signal, fail) {
  const held = jobs.map((job) => ({ job, curves: new Curves(), last: 0, isOver: false }));
  const stages = new Set(jobs.flatMap((job) => job.stages.map(({ name }) => name)));
  const which = select("metric", METRICS.filter(([name]) => stages.has(name.split("/")[0])));
  const axis = select("axis", AXES);
  const split = select("split", [
    ["both", "Train and validation"],
    ["train", "Train"],
    ["validation", "Validation"],
  ]);
  const holder = h("div");
  const draw = () => drawPlot(holder, held, { which: which.value, axis: axis.value, split: split.value }, signal);
  const rebuild = () => {
    holder.plot = null;
    draw();
  };
  for (const control of [which, axis, split]) control.addEventListener("change", rebuild);
  fill(
    body,
    card(null, h("div.two", null, field("Curve", which), field("X axis", axis), field("Split", split)), holder),
    differences(jobs),
  );
  const refresh = async () => {
    const news = await Promise.all(held.map((item) => readNew(item, signal)));
    if (news.some(Boolean)) draw();
    return held.some(({ isOver }) => !isOver);
  };
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

function drawPlot(holder, held, { which, axis, split }, signal) {
  const [stage, ...rest] = which.split("/");
  const name = rest.join("/");
  const splits = split === "both" ? ["train", "validation"] : [split];
  const lines = held
    .flatMap(({ job, curves }, index) =>
      splits.map((part) => ({
        job,
        index,
        part,
        points: curves.of(stage, part).filter(({ values }) => name in values),
      })),
    )
    .filter(({ points }) => points.length);
  if (!lines.length) {
    holder.plot = null;
    fill(holder, empty("Nothing to draw yet", "None of these jobs has points of this curve so far."));
    return;
  }
  const shape = lines.map(({ index, part }) => `${index}${part}`).join();
  if (holder.plot?.shape !== shape) holder.plot = makePlot(holder, lines, { which, axis }, shape, signal);
  const columns = align(
    lines.map(({ points }) => points.map((point) => [along(point, axis, points[0]), point.values[name]])),
  );
  holder.plot.chart.show(columns);
}

function makePlot(holder, lines, { which, axis }, shape, signal) {
  const series = lines.map(({ job, index, part }) => ({
    label: part === "train" ? (job.name ?? job.id) : `${job.name ?? job.id}, validation`,
    color: `s${index + 1}`,
    dash: part !== "train",
    points: part !== "train",
  }));
  const isShare = which.endsWith("accuracies");
  const chart = new Chart(series, {
    title: METRICS.find(([name]) => name === which)[1],
    height: 360,
    xLabel: axis === "step" ? null : axis === "epoch" ? "epoch" : "second",
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

/** All settings in which the jobs differ. */
function differences(jobs) {
  const flat = jobs.map(({ spec }) => flatten(spec));
  for (const values of flat) for (const name of SWITCHED) if (values[name] === null) values[name] = "no";
  const names = [...new Set(flat.flatMap((values) => Object.keys(values)))];
  const differing = names.filter((name) => new Set(flat.map((values) => (name in values ? setting(values[name]) : "–"))).size > 1);
  if (jobs.length < 2)
    return card("Settings", h("p.muted", null, "Choose another job to see where their settings differ."));
  if (!differing.length)
    return card(
      "Settings",
      h("p.muted", null, "These jobs have the same settings; what differs between them is chance."),
    );
  return card(
    "Settings that differ",
    table(
      ["Setting", ...jobs.map((job, index) => [h("span", { class: `c-s${index + 1}` }, "■ "), job.name ?? job.id])],
      differing.map((name) => tableRow(h("span.muted", null, name), ...flat.map((values) => (name in values ? setting(values[name]) : "–")))),
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
