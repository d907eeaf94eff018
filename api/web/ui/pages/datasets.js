// All datasets, and the way to upload one.

import { get, path, remove } from "../api.js";
import { mergeCard } from "../data/merge_card.js";
import { uploadCard } from "../data/upload_form.js";
import { warningsText } from "../form/data_warnings.js";
import { fill, h, KeyedRows, Region } from "../dom.js";
import { ago, bytes, count, plural } from "../format.js";
import { poll } from "../live.js";
import { act, ask, badge, empty, loading, moreButton, toast } from "../parts.js";
import { WORDS } from "../words.js";

const POLL_MS = 3000;
const PAGE = 20;

export async function open(main, { query, signal, fail }) {
  const content = h("div", null, loading("datasets"));
  const tidying = new Region("div", { class: "actions" }, (ids) => (ids.length ? deleteButton(ids, forget) : null));
  main.append(
    h("div.title-row", null, h("h1", { tabindex: "-1" }, "Datasets"), tidying.element),
    h("div.stack", null, uploadCard(signal, query.get("columns")), content, mergeCard(signal)),
  );
  const body = h("tbody");
  const rows = new KeyedRows(body, ({ id }) => id, makeRow);
  const table = h("div.table-holder", null, h("table.jobs", null, head(), body));
  let newest = [];
  let older = [];
  const show = () => {
    const shown = [...newest, ...older.filter(({ id }) => !newest.some((item) => item.id === id))];
    rows.show(shown);
    tidying.show(shown.filter(({ status }) => status === "rejected").map(({ id }) => id));
  };
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
  const forget = (ids) => {
    older = older.filter(({ id }) => !ids.includes(id));
    return refresh();
  };
  await refresh();
  poll(signal, POLL_MS, refresh).catch(fail);
}

/** Refused files are of no more use once their reports are read. */
function deleteButton(ids, onDeleted) {
  const label = `Delete ${plural(ids.length, "refused file")}`;
  const button = h("button.danger", { type: "button" }, label);
  button.addEventListener("click", async () => {
    const text = "Their reports are deleted with them. Datasets that jobs can use stay.";
    if (!(await ask(`${label}?`, text, [{ value: "yes", label: "Delete", kind: "danger" }]))) return;
    await act(button, async () => {
      for (const id of ids) await remove(path("datasets", id));
      toast("Deleted.");
      await onDeleted(ids);
    });
  });
  return button;
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
    h("td", { "data-label": "Kind" }, h("span", { title: WORDS[dataset.kind] }, dataset.kind)),
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
