// What the trainings of a job printed, as it comes.

import { path, send } from "../api.js";
import { fill, h } from "../dom.js";
import { openJobPage } from "../job/tabs.js";
import { poll } from "../live.js";
import { FINAL, notice } from "../parts.js";

const POLL_MS = 2000;
const MAX_SHOWN_CHARS = 2 * 1024 * 1024;
const LOG_END = "Preftune-Log-End";

export async function open(main, context) {
  const job = await openJobPage(main, context, "/log");
  const { signal, fail } = context;
  const address = path("jobs", job.id, "log");
  const text = h("pre.log", { tabindex: "0", "aria-label": "Log" });
  const note = h("div");
  const find = h("input", { type: "search", "aria-label": "Show only lines with", placeholder: "Show only lines with …" });
  const follow = h("input", { type: "checkbox", id: "follow", checked: true });
  const save = h("button", { type: "button" }, "Download");
  let content = "";
  let after = 0;
  const show = () => {
    const wanted = find.value.toLowerCase();
    const shown = wanted ? content.split("\n").filter((line) => line.toLowerCase().includes(wanted)).join("\n") : content;
    fill(text, shown || "Nothing was printed yet.");
    if (follow.checked) text.scrollTop = text.scrollHeight;
  };
  find.addEventListener("input", show);
  save.addEventListener("click", () => download(content, `${job.id}.log`));
  main.append(
    h("div.stack", null, h("div.tools", null, find, h("label.check", { for: "follow" }, follow, "Follow"), save), note, text),
  );
  const refresh = async () => {
    const response = await send("GET", `${address}?after=${after}`, { signal });
    const more = await response.text();
    after = Number(response.headers.get(LOG_END));
    content = (content + more).slice(-MAX_SHOWN_CHARS);
    if (more || !text.textContent) show();
    return !FINAL.has(job.status) || more.length > 0;
  };
  try {
    await refresh();
  } catch (error) {
    if (error.status !== 403) throw error;
    fill(note, notice("info", "The log needs a key with the scope write: it may show rows of the data."));
    return;
  }
  poll(signal, POLL_MS, refresh).catch(fail);
}

function download(content, name) {
  const address = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  const link = h("a", { href: address, download: name });
  link.click();
  URL.revokeObjectURL(address);
}
