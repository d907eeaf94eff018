// The policy in other formats: what was asked for, and the way to ask.

import { get, path, post } from "../api.js";
import { fill, h, icon } from "../dom.js";
import { ago, metric } from "../format.js";
import { act, badge, errorBox, table, tableRow } from "../parts.js";

const FORMATS = [
  ["gguf-f16", "GGUF, 16-bit floats"],
  ["gguf-q8_0", "GGUF, 8-bit integers"],
  ["gguf-f32", "GGUF, 32-bit floats: all that was trained"],
];
const POLL_MS = 3000;

export function exportsView(jobId, signal) {
  const address = path("jobs", jobId, "exports");
  const list = h("div");
  const format = h(
    "select",
    { id: "export-format", "aria-label": "Format of the export" },
    FORMATS.map(([value, label]) => h("option", { value }, label)),
  );
  const button = h("button", { type: "button" }, "Export");
  let timer = null;
  const refresh = async () => {
    const { data } = await get(address, { signal });
    fill(list, data.length ? table(["Export", "Status", ""], data.map(exportRow)) : null);
    clearTimeout(timer);
    const isGoing = data.some(({ status }) => status === "queued" || status === "running");
    if (isGoing && !signal.aborted) timer = setTimeout(() => refresh().catch(() => {}), POLL_MS);
  };
  const trouble = h("div");
  button.addEventListener("click", () =>
    act(button, async () => {
      fill(trouble);
      try {
        await post(address, { format: format.value }, { creates: true });
        await refresh();
      } catch (error) {
        fill(trouble, errorBox(error));
      }
    }),
  );
  signal.addEventListener("abort", () => clearTimeout(timer));
  const details = h("details", null, h("summary", null, "For llama.cpp and programs built on it"), h("div.stack", null, h("div.actions", null, format, button), trouble, list));
  details.addEventListener("toggle", () => details.open && refresh().catch((error) => fill(list, h("p.error-text", null, error.message))));
  return details;
}

function exportRow({ format, status, url, verification, error, created_at: created }) {
  const kind = { failed: "failed", succeeded: "succeeded", running: "running" }[status] ?? "queued";
  return tableRow(
    [format, h("div.hint", null, `asked ${ago(created)}`)],
    [
      badge(status, kind),
      error ? h("div.error-text", null, error) : null,
      verification ? h("div.hint", null, `read back: ${metric(verification.mean_difference)} nats a token off at the mean`) : null,
    ],
    url ? h("a", { href: url, download: true }, icon("download"), " Download") : null,
  );
}
