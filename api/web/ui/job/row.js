// One job as a row of a list.

import { path } from "../api.js";
import { h, Region } from "../dom.js";
import { ago, between, duration, percent, plural } from "../format.js";
import { bar, FINAL, jobBadge } from "../parts.js";
import { term } from "../words.js";

/** Heads of the columns, behind the one for choosing. */
export const makeHeads = () => ["Job", "Status", "Progress", term("held out", "Held-out result"), ["Model and ", term("variant")], "Created"];

export function makeRow(job, onChoose) {
  const name = new Region("td", { class: "name" }, nameCell);
  const status = new Region("td", { "data-label": "Status" }, (shown) => [
    jobBadge(shown),
    shown.place ? h("div.hint", null, `place ${shown.place} in the queue`) : null,
  ]);
  const progress = new Region("td", { class: "progress", "data-label": "Progress" }, progressCell);
  const result = new Region("td", { "data-label": "Result" }, resultCell);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const pick = h("input", {
    type: "checkbox",
    "aria-label": `Choose ${job.name ?? job.id}`,
    onchange: () => onChoose(job.id, pick.checked),
  });
  const { spec } = job;
  const element = h(
    "tr",
    null,
    h("td.pick", null, pick),
    name.element,
    status.element,
    progress.element,
    result.element,
    h("td", { "data-label": "Model" }, spec.base_model, h("div.muted", null, methodOf(spec))),
    created.element,
  );
  const update = (now) => {
    name.show({ id: now.id, name: now.name, tags: tagsOf(now) });
    status.show({ status: now.status, desired: now.desired, place: now.queue_position });
    progress.show(progressOf(now));
    result.show(now.results ?? null);
    created.show(ago(now.created_at));
  };
  return { element, update, setChosen: (isChosen) => (pick.checked = isChosen) };
}

export function tagsOf({ metadata }) {
  return (metadata.tags ?? "")
    .split(",")
    .map((tag) => tag.trim())
    .filter(Boolean);
}

export function tagLink(tag) {
  return h("a.tag", { href: `#/jobs?${new URLSearchParams({ tag })}`, title: `Jobs with the tag ${tag}` }, tag);
}

function methodOf({ method, variant, beta }) {
  return variant === undefined ? method : `${variant}, beta ${beta}`;
}

function nameCell({ id, name, tags }) {
  return [
    h("a", { href: `#${path("jobs", id)}`, "data-focus": "name" }, name ?? id),
    name ? h("div.muted.mono", null, id) : null,
    tags.length ? h("div.tags", null, tags.map(tagLink)) : null,
  ];
}

function progressOf(job) {
  const { fraction, eta_seconds: eta, step, total_steps: total } = job.progress;
  const isOver = FINAL.has(job.status);
  let note = "";
  if (isOver) note = job.started_at ? `took ${between(job.started_at, job.finished_at)}` : "never started";
  else if (job.status === "running" && job.stage)
    note = `${job.stage}${total ? ` ${step}/${total}` : ""}${eta === null ? "" : ` · ${duration(eta)} left`}`;
  else if (job.status === "paused") note = job.stage ? `paused in ${job.stage}` : "not started";
  return { fraction: Number(fraction.toFixed(4)), note, status: job.status, error: job.error?.title ?? null };
}

function progressCell({ fraction, note, status, error }) {
  if (error) return [h("div.error-text", null, error), h("div.hint", null, note)];
  if (status === "queued" && fraction === 0) return h("span.muted", null, "waiting for a worker");
  return [
    h(
      "div.bar-row",
      { class: `is-${status}` },
      bar(fraction, "Progress"),
      h("span.number", null, percent(fraction, 0)),
    ),
    note ? h("div.hint", null, note) : null,
  ];
}

function resultCell(results) {
  const held = results?.held_out;
  const figure = held?.reward_accuracy ?? held?.token_accuracy;
  if (!figure || figure.value === null) return results ? h("span.muted", null, "nothing held out") : h("span.muted.none", null, "–");
  const { low, high } = figure;
  const interval = low === null ? "" : `${percent(low, 0)} to ${percent(high, 0)}, `;
  return [
    `${percent(figure.value)} ${held.reward_accuracy ? "accuracy" : "token accuracy"}`,
    h("div.hint", null, `${interval}${plural(held.num_rows, "row")}`),
  ];
}
