// All datasets, and the way to upload one.

import { get, path } from "../api.js";
import { uploadCard } from "../data/upload_form.js";
import { warningsText } from "../form/data_warnings.js";
import { fill, h, KeyedRows, Region } from "../dom.js";
import { ago, bytes, count } from "../format.js";
import { poll } from "../live.js";
import { badge, empty, loading, moreButton } from "../parts.js";
import { term } from "../words.js";

const POLL_MS = 3000;
const PAGE = 20;

export async function open(main, { signal, fail }) {
  const content = h("div", null, loading("datasets"));
  main.append(
    h("div.title-row", null, h("h1", { tabindex: "-1" }, "Datasets")),
    h("div.stack", null, uploadCard(signal), content),
  );
  const body = h("tbody");
  const rows = new KeyedRows(body, ({ id }) => id, makeRow);
  const table = h("div.table-holder", null, h("table.jobs", null, head(), body));
  let newest = [];
  const older = [];
  const show = () => rows.show([...newest, ...older.filter(({ id }) => !newest.some((item) => item.id === id))]);
  const more = moreButton(
    (cursor) => get("/datasets", { query: { limit: PAGE, cursor }, signal }),
    (items) => {
      older.push(...items);
      show();
    },
    "Show older datasets",
  );
  let isFirst = true;
  const refresh = async () => {
    const page = await get("/datasets", { query: { limit: PAGE }, signal });
    newest = page.data;
    show();
    if (!newest.length)
      fill(
        content,
        empty(
          "No datasets yet",
          "Preference pairs as JSONL, a JSON array, CSV, TSV, Parquet or Arrow, plain or compressed. Each row holds a prompt, a better and a worse response; most published layouts are recognised.",
        ),
      );
    else if (!table.isConnected) fill(content, table, more.element);
    if (isFirst) more.offer(page.next_cursor);
    isFirst = false;
  };
  await refresh();
  poll(signal, POLL_MS, refresh).catch(fail);
}

function head() {
  return h(
    "thead",
    null,
    h(
      "tr",
      null,
      ["Name", "Status", "Kind", "Rows", "Size", "Created"].map((name) => h("th", { scope: "col" }, name)),
    ),
  );
}

function makeRow(dataset) {
  const status = new Region("td", { "data-label": "Status" }, (word) => badge(word));
  const rows = new Region("td", { "data-label": "Rows" }, rowsView);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const element = h(
    "tr",
    null,
    h(
      "td.name",
      null,
      h("a", { href: `#${path("datasets", dataset.id)}` }, dataset.name),
      h("div.muted.mono", null, dataset.id),
    ),
    status.element,
    h("td", { "data-label": "Kind" }, term(dataset.kind)),
    rows.element,
    h("td", { "data-label": "Size" }, bytes(dataset.num_bytes)),
    created.element,
  );
  const update = (now) => {
    status.show(now.status);
    rows.show({ accepted: now.num_accepted, rejected: now.num_rejected, aside: now.num_set_aside, warnings: warningsText(now.warnings), status: now.status });
    created.show(ago(now.created_at));
  };
  return { element, update };
}

function rowsView({ accepted, rejected, aside, warnings, status }) {
  if (status === "processing") return h("span.muted", null, "being checked");
  const notes = [
    rejected ? `${count(rejected)} malformed` : null,
    aside ? `${count(aside)} set aside` : null,
    warnings,
  ].filter(Boolean);
  return [`${count(accepted)} usable`, notes.length ? h("div.hint", null, notes.join(", ")) : null];
}
