// All jobs, newest first, live.

import { get, path } from "../api.js";
import { fill, h, KeyedRows, Region } from "../dom.js";
import { ago, between, duration, percent } from "../format.js";
import { poll } from "../live.js";
import { act, bar, empty, FINAL, jobBadge, loading, moreButton } from "../parts.js";

const STATUSES = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];
const POLL_MS = 2000;
const PAGE = 20;
const MAX_COMPARED = 8;

export async function open(main, { query, signal, fail }) {
  const status = STATUSES.includes(query.get("status")) ? query.get("status") : "";
  const chosen = new Set();
  const compare = h(
    "button",
    { type: "button", disabled: true, onclick: () => (location.hash = `#/compare?jobs=${[...chosen].join(",")}`) },
    "Compare",
  );
  const onChoose = (id, isChosen) => {
    if (isChosen) chosen.add(id);
    else chosen.delete(id);
    compare.disabled = chosen.size < 2 || chosen.size > MAX_COMPARED;
    fill(compare, chosen.size ? `Compare ${chosen.size}` : "Compare");
  };
  const body = h("tbody");
  const rows = new KeyedRows(
    body,
    (job) => job.id,
    (job) => makeRow(job, onChoose),
  );
  const table = h("div.table-holder", null, h("table.jobs", null, head(), body));
  const content = h("div", null, loading("jobs"));
  main.append(
    h("div.title-row", null, h("h1", { tabindex: "-1" }, "Jobs"), h("div.actions", null, compare)),
    h(
      "nav.filters",
      { "aria-label": "Filter by status" },
      filter("", "All", status),
      STATUSES.map((name) => filter(name, name[0].toUpperCase() + name.slice(1), status)),
    ),
    content,
  );
  const older = [];
  const more = moreButton(
    (cursor) => get("/jobs", { query: { status, limit: PAGE, cursor }, signal }),
    (jobs) => {
      older.push(...jobs);
      rows.show([...newest, ...older.filter((job) => !newest.some(({ id }) => id === job.id))]);
    },
    "Show older jobs",
  );
  let newest = [];
  let isFirst = true;
  const refresh = async () => {
    const page = await get("/jobs", { query: { status, limit: PAGE }, signal });
    newest = page.data;
    rows.show([...newest, ...older.filter((job) => !newest.some(({ id }) => id === job.id))]);
    if (newest.length === 0) fill(content, nothing(status));
    else if (!table.isConnected) fill(content, table, more.element);
    if (isFirst && page.next_cursor) offerOlder(more, page.next_cursor);
    isFirst = false;
  };
  await refresh();
  poll(signal, POLL_MS, refresh).catch(fail);
}

function offerOlder(more, cursor) {
  const button = h("button", { type: "button" }, "Show older jobs");
  button.addEventListener("click", () => act(button, () => more.start(cursor)));
  fill(more.element, button);
}

function filter(name, label, current) {
  return h(
    "a",
    { href: name ? `#/jobs?status=${name}` : "#/jobs", "aria-current": name === current ? "true" : null },
    label,
  );
}

function nothing(status) {
  if (status)
    return empty(
      `No ${status} jobs`,
      "Jobs of another status are under “All”.",
      h("a.button", { href: "#/jobs" }, "Show all"),
    );
  return empty(
    "No jobs yet",
    "Upload a file of preference pairs, then start a job: it trains on the chosen responses first, then learns to prefer them to the rejected ones.",
    h("a.button", { href: "#/datasets" }, "Upload data"),
    h("a.button.primary", { href: "#/new" }, "New job"),
  );
}

function head() {
  const names = ["Job", "Status", "Progress", "Base model", "Loss", "Created"];
  return h(
    "thead",
    null,
    h(
      "tr",
      null,
      h("th.pick", null, h("span.hidden", null, "Compare")),
      names.map((name) => h("th", { scope: "col" }, name)),
    ),
  );
}

function makeRow(job, onChoose) {
  const name = new Region("td", { class: "name" }, nameCell);
  const status = new Region("td", { "data-label": "Status" }, (shown) => [
    jobBadge(shown),
    shown.place ? h("div.hint", null, `place ${shown.place} in the queue`) : null,
  ]);
  const progress = new Region("td", { class: "progress", "data-label": "Progress" }, progressCell);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const pick = h("input", {
    type: "checkbox",
    "aria-label": `Compare ${job.name ?? job.id}`,
    onchange: () => onChoose(job.id, pick.checked),
  });
  const element = h(
    "tr",
    null,
    h("td.pick", null, pick),
    name.element,
    status.element,
    progress.element,
    h("td", { "data-label": "Base model" }, job.spec.base_model),
    h(
      "td",
      { "data-label": "Loss" },
      job.spec.variant ?? job.spec.method,
      job.spec.beta === undefined ? null : h("span.muted", null, ` β ${job.spec.beta}`),
    ),
    created.element,
  );
  const update = (now) => {
    name.show({ id: now.id, name: now.name });
    status.show({ status: now.status, desired: now.desired, place: now.queue_position });
    progress.show(progressOf(now));
    created.show(ago(now.created_at));
  };
  return { element, update };
}

function nameCell({ id, name }) {
  return [
    h("a", { href: `#${path("jobs", id)}`, "data-focus": "name" }, name ?? id),
    name ? h("div.muted.mono", null, id) : null,
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
