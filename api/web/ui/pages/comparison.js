// Trained models side by side: accuracy against divergence, the setting to take and why, paired differences, what differs.

import { get, path, ROOT, withQuery } from "../api.js";
import { fill, h } from "../dom.js";
import { count, metric, percent, setting, signed } from "../format.js";
import { act, card, empty, jobBadge, loading, notice, table, tableRow } from "../parts.js";

const COLORS = 8;
const MAX_SETTINGS = 4;

export async function open(main, { query, signal }) {
  main.append(loading("comparison"));
  const source = sourceOf(query);
  if (!source) {
    fill(main, heading(), empty("Nothing to compare", "Open a sweep, or choose jobs in Compare."));
    return;
  }
  // What draws the picture is loaded while the service compares.
  const [found, { scatter }] = await Promise.all([get(source.address, { query: source.query, signal }), import("../charts/scatter.js")]);
  const labels = new Map(found.jobs.map((job) => [job.job_id, label(job)]));
  const report = (suffix) => `${ROOT}${withQuery(source.address + suffix, source.query)}`;
  fill(
    main,
    h(
      "div.title-row",
      null,
      heading(),
      h(
        "div.actions",
        null,
        h("a.button", { href: report(".html"), download: "" }, "Report (HTML)"),
        h("a.button", { href: report(".txt"), download: "comparison.txt" }, "As text"),
      ),
    ),
    h(
      "div.stack",
      null,
      recommendation(found, labels),
      frontier(found, labels, scatter),
      policies(found, labels),
      differences(found, labels, source, signal),
      ...["settings", "data", "code"].map((part) => differing(part, found[part], labels)),
      found.num_left_out ? notice("info", `${found.num_left_out} further members of the sweep are left out.`) : null,
    ),
  );
}

/** The request behind the page: the members of a sweep, or jobs of which the first is compared with the others. */
function sourceOf(query) {
  const sweep = query.get("sweep");
  if (sweep) return { address: `${path("sweeps", sweep)}/comparison`, query: { against: query.get("against") } };
  const [first, ...others] = [...new Set((query.get("jobs") ?? "").split(",").filter(Boolean))];
  return first ? { address: `${path("jobs", first)}/comparison`, query: { others: others.join(",") || first } } : null;
}

function heading() {
  return h("h1", { tabindex: "-1" }, "Accuracy and divergence");
}

function label({ name, job_id: id, beta }) {
  return beta === null ? (name ?? id) : `${name ?? id} (β ${beta})`;
}

function recommendation({ recommended }, labels) {
  if (!recommended.job_id) return notice("info", recommended.reason);
  const link = h("a", { href: `#${path("jobs", recommended.job_id)}` }, labels.get(recommended.job_id));
  return notice("check", h("strong", null, "Recommended: ", link), h("p", null, recommended.reason));
}

/** The picture of what is measured, against the divergence: reward accuracy, or a judge's win rates, as chosen. */
function frontier({ jobs, front, win_rates: tables }, labels, scatter) {
  const measures = [accuracyOf(jobs, front, labels), ...tables.map((table) => winRatesOf(table, jobs, labels))];
  const shown = h("div");
  const show = ({ points, front: line, title, yLabel, about, nothing, rows }) =>
    fill(
      shown,
      points.length ? scatter(points, line, { title, xLabel: "KL to the reference, nats per response", yLabel, format: (value) => percent(value) }) : h("p.muted", null, nothing),
      points.length ? h("p.hint", null, `${about} The line is the Pareto front: no point has more of it at no more divergence.`) : null,
      rows ?? null,
    );
  show(measures[0]);
  if (measures.length === 1) return card("Reward accuracy against divergence", shown);
  const choice = h("select", { id: "measure" }, measures.map(({ name }, index) => h("option", { value: String(index) }, name)));
  choice.addEventListener("change", () => show(measures[Number(choice.value)]));
  return card("Accuracy and win rates against divergence", h("div.field", null, h("label", { for: choice.id }, "Measure"), choice), shown);
}

function accuracyOf(jobs, front, labels) {
  return {
    name: "Reward accuracy on held-out rows",
    title: "Reward accuracy against divergence from the reference, a point for each evaluation",
    yLabel: "reward accuracy",
    about: "A point for each evaluation, filled where that model is published.",
    nothing: "Nothing to draw yet: both are measured on held-out rows, at each evaluation.",
    front: front.map(({ kl, accuracy }) => ({ x: kl, y: accuracy })),
    points: jobs.flatMap((job, index) => job.points.map((point) => dot(job, index, point, point.reward_accuracy, labels))).filter(Boolean),
  };
}

function winRatesOf({ title, points }, jobs, labels) {
  const places = new Map(jobs.map((job, index) => [job.job_id, index]));
  const dots = points.map((point) => ({ point, drawn: dot(jobs[places.get(point.job_id)], places.get(point.job_id), point, point.win_rate.value, labels) }));
  const best = dots.filter(({ point, drawn }) => drawn && point.is_on_front).map(({ drawn }) => drawn);
  return {
    name: title,
    title: `${title}, against divergence from the reference, a point for each policy`,
    yLabel: "win rate",
    about: "A point for each judged policy, filled where that model is published; a tie counts half.",
    nothing: "No picture: the divergence of none of these policies was measured.",
    front: best.sort((one, other) => one.x - other.x),
    points: dots.map(({ drawn }) => drawn).filter(Boolean),
    rows: rateTable(points, places, labels),
  };
}

function rateTable(points, places, labels) {
  const rows = points.map(({ job_id: id, step, kl, win_rate: rate, num_prompts: number, num_failed: failed, is_on_front: isBest }) =>
    tableRow(
      [swatch(places.get(id)), h("a", { href: `#${path("jobs", id)}` }, labels.get(id))],
      step === null ? "–" : count(step),
      kl === null ? "–" : metric(kl),
      [percent(rate.value), h("div.hint", null, `${percent(rate.low)} to ${percent(rate.high)}`)],
      [count(number), failed ? h("div.hint", null, `${count(failed)} without a verdict`) : null],
      isBest ? "yes" : "",
    ),
  );
  return table(["Job", "Step", "KL (nats)", "Win rate", "Prompts", "On the front"], rows);
}

/** A policy in the picture; null where one of its figures is not known. */
function dot(job, index, { step, kl, is_published: isPublished }, value, labels) {
  if (kl === null || value === null) return null;
  return {
    x: kl,
    y: value,
    color: `c-s${(index % COLORS) + 1}`,
    isFilled: isPublished,
    label: isPublished && job.beta !== null ? `β ${job.beta}` : "",
    title: `${labels.get(job.job_id)}, step ${step}: ${metric(kl)} nats, ${percent(value)}`,
  };
}

function policies({ jobs }, labels) {
  const interval = (figure, format) =>
    figure ? [format(figure.value), figure.low === null ? null : h("div.hint", null, `${format(figure.low)} to ${format(figure.high)}`)] : "–";
  const rows = jobs.map((job, index) => {
    const published = job.points.find((point) => point.is_published);
    return tableRow(
      [swatch(index), h("a", { href: `#${path("jobs", job.job_id)}` }, labels.get(job.job_id)), " ", jobBadge(job)],
      published?.kl === undefined || published.kl === null ? "–" : metric(published.kl),
      interval(job.held_out?.reward_accuracy, (value) => percent(value)),
      interval(job.held_out?.reward_margin, signed),
      published?.is_on_front ? "yes" : "",
    );
  });
  return card("Published models", table(["Job", "KL (nats)", "Reward accuracy", "Reward margin", "On the front"], rows));
}

function differences({ jobs, against, differences: found, pairs_dataset_id: dataset }, labels, source, signal) {
  if (!against) return card("Paired differences", h("p.muted", null, "No job has a report on held-out pairs yet."));
  const place = new Map(jobs.map((job, index) => [job.job_id, index]));
  const figure = (item) => (item ? [`${signed(item.value)}`, item.low === null ? null : h("div.hint", null, `${signed(item.low)} to ${signed(item.high)}`)] : "–");
  const shown = h("div");
  const rows = found.map((item) => {
    const name = [swatch(place.get(item.job_id)), labels.get(item.job_id)];
    if (item.reason) return tableRow(name, "–", "–", "–", h("span.muted", null, item.reason));
    const number = item.gained + item.lost;
    const button = h("button.quiet", { type: "button", "aria-label": `+${item.gained} −${item.lost}: pairs of ${labels.get(item.job_id)} that changed sides` }, `+${item.gained} −${item.lost}`);
    button.addEventListener("click", () =>
      act(button, async () => {
        const { changedPairs } = await import("../compare/changed_pairs.js");
        fill(shown, changedPairs({ item, against, dataset, labels, signal }));
      }),
    );
    return tableRow(name, count(item.num_pairs), figure(item.reward_accuracy), figure(item.preference_loss), number ? button : "none");
  });
  return card(
    `Paired differences from ${labels.get(against)}`,
    h("p.hint", null, "On the same held-out pairs, with 95 % intervals: an interval that contains 0 says that the pairs do not tell the two apart. Preference loss is −log σ(reward margin), nats per pair. Changed sides: pairs that this job gets right and the other does not, and the other way round; open them to see which."),
    table(["Job", "Pairs", "Reward accuracy", "Preference loss", "Changed sides"], rows),
    shown,
  );
}

const TITLES = { settings: "Settings that differ", data: "Data that differs", code: "Code and devices that differ" };

function differing(part, items, labels) {
  if (!items.length) return card(TITLES[part], h("p.muted", null, "None."));
  const known = [...labels].filter(([id]) => items.some(({ values }) => id in values));
  const wide = items.length > MAX_SETTINGS && known.length <= MAX_SETTINGS;
  if (wide)
    return card(TITLES[part], table(["", ...known.map(([, name]) => name)], items.map(({ name, values }) => tableRow(name, ...known.map(([id]) => shownValue(values[id]))))));
  return card(TITLES[part], table(["Job", ...items.map(({ name }) => name)], known.map(([id, name]) => tableRow(name, ...items.map(({ values }) => shownValue(values[id]))))));
}

function shownValue(value) {
  return value === null || value === undefined ? "–" : setting(value);
}

function swatch(index) {
  return h("span", { class: `c-s${(index % COLORS) + 1}`, "aria-hidden": "true" }, "■ ");
}
