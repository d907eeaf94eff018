// All datasets, and the way to upload one.

import { get, path, upload } from "../api.js";
import { warningsText } from "../form/data_warnings.js";
import { fill, h, icon, KeyedRows, Region } from "../dom.js";
import { ago, bytes, count, percent } from "../format.js";
import { poll } from "../live.js";
import { act, badge, bar, card, empty, errorBox, loading, moreButton, toast } from "../parts.js";

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
    if (isFirst && page.next_cursor) {
      const button = h("button", { type: "button" }, "Show older datasets");
      button.addEventListener("click", () => act(button, () => more.start(page.next_cursor)));
      fill(more.element, button);
    }
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
    h("td", { "data-label": "Kind" }, dataset.kind),
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

function uploadCard(signal) {
  const input = h("input.hidden", {
    type: "file",
    id: "file",
    accept: ".jsonl,.json,.csv,.tsv,.parquet,.arrow,.tar,.gz,.zst,.ndjson",
  });
  const chosen = h("strong", null, "Drop a file here, or choose one");
  const choose = h("button", { type: "button", onclick: () => input.click() }, "Choose a file");
  const drop = h(
    "div.drop",
    null,
    icon("upload"),
    chosen,
    h(
      "span.hint",
      null,
      "JSONL, JSON, CSV, TSV, Parquet or Arrow; plain, gzip, zstd, bzip2 or xz. It is checked before a job can use it.",
    ),
    choose,
    input,
  );
  const name = h("input", { type: "text", id: "ds-name", maxlength: "255", placeholder: "the file's name" });
  const kind = select("ds-kind", [
    ["preference", "Preference pairs"],
    ["demonstration", "Demonstrations (for SFT)"],
    ["unpaired", "Unpaired, marked good or bad (for KTO)"],
  ]);
  const onError = select("ds-on-error", [
    ["reject", "Reject the file and list every error"],
    ["skip", "Skip the row"],
  ]);
  const split = h("input", { type: "text", id: "ds-split", maxlength: "255", placeholder: "train" });
  const splitField = field("Split of a saved DatasetDict", "ds-split", split);
  splitField.hidden = true;
  const start = h("button.primary", { type: "submit", disabled: true }, icon("upload"), "Upload");
  const outcome = h("div", { "aria-live": "polite" });
  let file = null;
  const take = (given) => {
    file = given ?? null;
    fill(chosen, file ? `${file.name} (${bytes(file.size)})` : "Drop a file here, or choose one");
    start.disabled = !file;
    splitField.hidden = !/\.tar(\.\w+)?$|\.tgz$/i.test(file?.name ?? "");
  };
  input.addEventListener("change", () => take(input.files[0]));
  dropTarget(drop, take);
  const submit = async (event) => {
    event.preventDefault();
    if (!file) return;
    const fields = { kind: kind.value, on_error: onError.value };
    if (name.value.trim()) fields.name = name.value.trim();
    if (!splitField.hidden && split.value.trim()) fields.split = split.value.trim();
    await send(file, fields, { start, outcome, signal });
  };
  return h(
    "form.card",
    { onsubmit: submit, "aria-label": "Upload a dataset" },
    drop,
    h(
      "div.two",
      null,
      field("Name", "ds-name", name),
      field("Type of data", "ds-kind", kind),
      field("If a row is invalid", "ds-on-error", onError),
      splitField,
    ),
    outcome,
    h("div.actions", null, start),
  );
}

async function send(file, fields, { start, outcome, signal }) {
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort());
  const progress = bar(0, "Upload");
  const note = h("span.hint", null, "Starting …");
  fill(
    outcome,
    h(
      "div.stack",
      null,
      h("div.bar-row", null, progress, h("button.small", { type: "button", onclick: () => stop.abort() }, "Stop")),
      note,
    ),
  );
  const onProgress = (sent, total) => {
    progress.value = total ? sent / total : 0;
    fill(
      note,
      sent < total
        ? `${bytes(sent)} of ${bytes(total)} (${percent(sent / total, 0)})`
        : "Sent; the service stores it …",
    );
  };
  start.disabled = true;
  try {
    const dataset = await upload(file, fields, { signal: stop.signal, onProgress });
    location.hash = `#${path("datasets", dataset.id)}`;
  } catch (error) {
    fill(outcome, error.name === "AbortError" ? null : errorBox(error));
    if (error.name === "AbortError" && !signal.aborted) toast("Upload stopped; nothing was kept.");
  } finally {
    start.disabled = false;
  }
}

function dropTarget(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("is-over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("is-over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("is-over");
    take(event.dataTransfer.files[0]);
  });
}

function field(label, id, control) {
  return h("div.field", null, h("label", { for: id }, label), control);
}

function select(id, options) {
  return h(
    "select",
    { id },
    options.map(([value, label]) => h("option", { value }, label)),
  );
}
