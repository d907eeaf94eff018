// The form by which a file becomes a dataset.

import { path, upload } from "../api.js";
import { fill, h, icon } from "../dom.js";
import { bytes, percent } from "../format.js";
import { bar, errorBox, toast } from "../parts.js";

/** The file that was chosen last, while the page lives. */
const last = { file: null };

/** The form; what was chosen last stays chosen, so that a refused file is read again with other settings: `columns`, as JSON. */
export function uploadCard(signal, columns = null) {
  const input = h("input.hidden", {
    type: "file",
    id: "file",
    "aria-label": "Data file",
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
    ["responses", "Responses of models (to be judged)"],
  ]);
  const onError = select("ds-on-error", [
    ["reject", "Reject the file and list every error"],
    ["skip", "Skip the row"],
  ]);
  const reading = readingFields(kind, columns);
  const split = h("input", { type: "text", id: "ds-split", maxlength: "255", placeholder: "train" });
  const splitField = field("Split of a saved DatasetDict", "ds-split", split);
  splitField.hidden = true;
  const start = h("button.primary", { type: "submit", disabled: true }, icon("upload"), "Upload");
  const outcome = h("div", { "aria-live": "polite" });
  let file = null;
  const take = (given) => {
    file = given ?? null;
    last.file = file;
    fill(chosen, file ? `${file.name} (${bytes(file.size)})` : "Drop a file here, or choose one");
    start.disabled = !file;
    splitField.hidden = !/\.tar(\.\w+)?$|\.tgz$/i.test(file?.name ?? "");
  };
  input.addEventListener("change", () => take(input.files[0]));
  dropTarget(drop, take);
  if (last.file) take(last.file);
  const submit = async (event) => {
    event.preventDefault();
    if (!file) return;
    // A browser writes quotes of a file's name as %22; as a field of its own it stays as it is.
    const fields = { name: name.value.trim() || file.name, kind: kind.value, on_error: onError.value, ...reading.values() };
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
    reading.element,
    outcome,
    h("div.actions", null, start),
  );
}

const ROLES = {
  preference: ["prompt", "chosen", "rejected"],
  unpaired: ["prompt", "response", "label"],
  demonstration: ["prompt", "response"],
  responses: ["prompt", "response", "model"],
};

/** How the rows are read where that is not recognised by itself: names of columns, layout, verdicts. */
function readingFields(kind, given) {
  const columns = h("div.two");
  const known = columnsOf(given);
  const inputs = new Map();
  const showColumns = () => {
    inputs.clear();
    const made = ROLES[kind.value].map((role) => {
      const control = h("input", { type: "text", id: `ds-column-${role}`, placeholder: role, autocomplete: "off" });
      control.value = known[role] ?? "";
      inputs.set(role, control);
      return field(`Column of the ${role}`, control.id, control);
    });
    fill(columns, made);
  };
  kind.addEventListener("change", showColumns);
  showColumns();
  const text = (id, placeholder) => h("input", { type: "text", id, placeholder, autocomplete: "off" });
  const format = text("ds-format", "recognised by itself");
  const ignore = text("ds-ignore", "such as weight, source");
  const verdicts = text("ds-values", '{"0": "first", "1": "second", "2": "tie"}');
  const ties = select("ds-ties", [
    ["keep", "Keep them, with a warning"],
    ["drop", "Drop them"],
  ]);
  const values = () => {
    const named = [...inputs].map(([role, { value }]) => [role, value.trim()]).filter(([, value]) => value);
    const ignored = ignore.value.split(",").map((name) => name.trim()).filter(Boolean);
    const given = {
      columns: named.length ? JSON.stringify(Object.fromEntries(named)) : "",
      format: format.value.trim(),
      ignore: ignored.length ? JSON.stringify(ignored) : "",
      values: verdicts.value.trim(),
      ties: ties.value === "drop" ? "drop" : "",
    };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => value));
  };
  const element = h(
    "details",
    { open: Object.keys(known).length > 0 },
    h("summary", null, "Columns and layout"),
    h(
      "div.stack",
      null,
      h("p.hint", null, "Most published layouts are recognised. Where one is not, name the file's columns."),
      columns,
      h(
        "div.two",
        null,
        field("Layout", format.id, format),
        field("Columns to ignore", ignore.id, ignore),
        field("What verdicts mean, as JSON", verdicts.id, verdicts),
        field("Pairs with equal scores", "ds-ties", ties),
      ),
    ),
  );
  return { element, values };
}

function columnsOf(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
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
    const { files } = event.dataTransfer;
    if (files.length > 1) toast(`One file at a time: ${files[0].name} is taken, ${files.length - 1} more are not.`, "warning");
    take(files[0]);
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
