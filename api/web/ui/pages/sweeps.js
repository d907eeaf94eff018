// All sweeps, live.

import { get, path } from "../api.js";
import { fill, h, KeyedRows, Region } from "../dom.js";
import { pathName } from "../form/layout.js";
import { ago, plural, setting } from "../format.js";
import { poll } from "../live.js";
import { badge, empty, loading, moreButton } from "../parts.js";
import { badgeKind, metricName, valueText } from "../sweep/words.js";

const POLL_MS = 5000;
const PAGE = 20;
const HEADS = ["Sweep", "Status", "Jobs", "Best so far", "Created"];

export async function open(main, { signal, fail }) {
  const content = h("div", null, loading("sweeps"));
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "Sweeps")), content);
  const body = h("tbody");
  const rows = new KeyedRows(body, ({ id }) => id, makeRow);
  const heads = HEADS.map((name) => h("th", { scope: "col" }, name));
  const table = h("div.table-holder", null, h("table.jobs", null, h("thead", null, h("tr", null, heads)), body));
  const older = [];
  let newest = [];
  const show = () => rows.show([...newest, ...older.filter(({ id }) => !newest.some((item) => item.id === id))]);
  const load = (cursor) => get("/sweeps", { query: { limit: PAGE, cursor }, signal });
  const more = moreButton(
    load,
    (items) => {
      older.push(...items);
      show();
    },
    "Show older sweeps",
  );
  let isFirst = true;
  const refresh = async () => {
    const page = await load(null);
    newest = page.data;
    show();
    if (!newest.length) fill(content, nothing());
    else if (!table.isConnected) fill(content, table, more.element);
    if (isFirst) more.offer(page.next_cursor);
    isFirst = false;
  };
  await refresh();
  poll(signal, POLL_MS, refresh).catch(fail);
}

function nothing() {
  return empty(
    "No sweeps yet",
    "A sweep runs one job with several values of a setting, such as beta, and names the best by its held-out rows. Start one in the form of a job, under “Sweep”.",
    h("a.button.primary", { href: "#/new" }, "New job"),
  );
}

function makeRow(sweep) {
  const status = new Region("td", { "data-label": "Status" }, (word) => badge(word, badgeKind(word)));
  const jobs = new Region("td", { "data-label": "Jobs" }, ({ number, counts }) => [
    plural(number, "job"),
    h("div.hint", null, Object.entries(counts).map(([word, many]) => `${many} ${word}`).join(", ")),
  ]);
  const best = new Region("td", { "data-label": "Best" }, bestCell);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const name = h("td.name", null, h("a", { href: `#${path("sweeps", sweep.id)}` }, sweep.name ?? sweep.id), sweep.name ? h("div.muted.mono", null, sweep.id) : null);
  const element = h("tr", null, name, status.element, jobs.element, best.element, created.element);
  const update = (now) => {
    status.show(now.status);
    jobs.show({ number: now.num_members, counts: now.counts });
    best.show({ member: now.members.find((member) => member.job_id === now.best_job_id) ?? null, metric: now.metric });
    created.show(ago(now.created_at));
  };
  return { element, update };
}

function bestCell({ member, metric }) {
  if (!member) return h("span.muted", null, "–");
  return [
    h("a", { href: `#${path("jobs", member.job_id)}` }, Object.entries(member.overrides).map(([name, value]) => `${pathName(`/${name}`)} ${setting(value)}`).join(", ")),
    h("div.hint", null, `${metricName(metric)}: ${valueText(metric, member.value)}`),
  ];
}
