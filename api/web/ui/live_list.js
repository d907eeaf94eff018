// A live list with the newest items on top: the first page is read again now and then, older pages stay as they were read.

import { get } from "./api.js";
import { fill, h, KeyedRows } from "./dom.js";
import { poll } from "./live.js";
import { loading, moreButton } from "./parts.js";

const PAGE = 20;
const POLL_MS = 5000;

/**
 * Fill `content` with the list and keep it up to date while `signal` lasts. `makeRow(item)` gives {element, update},
 * `nothing()` what is shown without any; `what` names the items; `prepare(items)` is awaited before they are shown.
 */
export async function liveList(content, { address, query = {}, heads, makeRow, nothing, what, prepare = async () => {}, signal, fail }) {
  fill(content, loading(what));
  const body = h("tbody");
  const rows = new KeyedRows(body, ({ id }) => id, makeRow);
  const head = h("tr", null, heads.map((name) => h("th", { scope: "col" }, name)));
  const table = h("div.table-holder", null, h("table.jobs", null, h("thead", null, head), body));
  const older = [];
  let newest = [];
  const show = () => rows.show([...newest, ...older.filter(({ id }) => !newest.some((item) => item.id === id))]);
  const load = async (cursor) => {
    const page = await get(address, { query: { ...query, limit: PAGE, cursor }, signal });
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
