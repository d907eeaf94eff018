// A live list with the newest items on top: the first page is read again now and then, older pages stay as they were read.

import { get } from "./api.js";
import { fill, h, KeyedRows, Region } from "./dom.js";
import { ago } from "./format.js";
import { poll } from "./live.js";
import { loading, moreButton } from "./parts.js";

const PAGE = 20;
const POLL_MS = 5000;

/** A column: `show(value(item))` is its cell, made anew when the value has changed; `label` names it on a telephone. */
export function column(head, value, show = (shown) => shown, { label = head, kind = null } = {}) {
  return { head, label, kind, value, show };
}

const CREATED = column("Created", (item) => ago(item.created_at), undefined, { kind: "muted" });
const underName = ({ id, name }) => (name ? h("div.muted.mono", null, id) : null);

/**
 * Fill `content` with the list and keep it up to date while `signal` lasts. `what` names the items and where their pages
 * are; the first column, with `head`, has the name, with `under(item)` below it; `columns` follow, then the date.
 * `nothing()` is shown without any item; `prepare(items)` is awaited before they are shown.
 */
export async function liveList(content, { what, query = {}, head, under = underName, columns, nothing, prepare = async () => {}, signal, fail }) {
  fill(content, loading(what));
  const all = [...columns, CREATED];
  const body = h("tbody");
  const rows = new KeyedRows(body, ({ id }) => id, (item) => makeRow(item, `#/${what}`, under, all));
  const heads = h("tr", null, [head, ...all.map((each) => each.head)].map((name) => h("th", { scope: "col" }, name)));
  const table = h("div.table-holder", null, h("table.jobs", null, h("thead", null, heads), body));
  const older = [];
  let newest = [];
  const show = () => rows.show([...newest, ...older.filter(({ id }) => !newest.some((item) => item.id === id))]);
  const load = async (cursor) => {
    const page = await get(`/${what}`, { query: { ...query, limit: PAGE, cursor }, signal });
    await prepare(page.data);
    return page;
  };
  const more = moreButton(
    load,
    (items) => {
      older.push(...items);
      show();
    },
    `Show older ${what}`,
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

function makeRow(item, address, under, columns) {
  const cells = columns.map(({ label, kind, show }) => new Region("td", { class: kind, "data-label": label }, show));
  const link = h("a", { href: `${address}/${encodeURIComponent(item.id)}` }, item.name ?? item.id);
  const element = h("tr", null, h("td.name", null, link, under(item)), cells.map((cell) => cell.element));
  return { element, update: (now) => columns.forEach(({ value }, place) => cells[place].show(value(now))) };
}
