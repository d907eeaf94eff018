// Operations: who works on what, who waits, who stores what, and how clocks and disks are. For admins and operators.

import { get, listAll, path } from "../api.js";
import { fill, h } from "../dom.js";
import { ago, bytes, count, duration, percent } from "../format.js";
import { poll } from "../live.js";
import { badge, bar, card, empty, loading, table, tableRow } from "../parts.js";

const PERIOD_MS = 5000;
const MAX_CLOCK_SECONDS = 5;
const KINDS = { working: "running", waiting: "paused", idle: "queued", up: "succeeded", silent: "failed" };

export async function open(main, { signal }) {
  const content = h("div.stack", null, loading("workers"));
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "Workers and storage")), content);
  const refresh = async () => {
    const [workers, storage] = await Promise.all([get("/workers", { signal }), listAll("/storage", { signal })]);
    fill(content, workersCard(workers.data), queueCard(workers.queue), storageCard(storage), disksCard(workers.data));
  };
  await refresh();
  poll(signal, PERIOD_MS, refresh);
}

function workersCard(processes) {
  if (!processes.length) {
    return empty("No workers", "Start one with `preftune worker`; it is listed here within seconds.");
  }
  const rows = processes.map((one) =>
    tableRow(
      h("code", null, one.id),
      badge(one.state, KINDS[one.state]),
      one.kind === "api" ? "API" : device(one),
      one.job ? h("a", { href: `#${path("jobs", one.job.id)}` }, step(one.job)) : "",
      one.seen_at ? ago(one.seen_at) : "no sign of life",
      clock(one.clock_offset_seconds),
      one.host ?? "",
      one.version ?? "",
    ),
  );
  const heads = ["Name", "State", "Device", "Job", "Seen", "Clock", "Machine", "Version"];
  return card("Workers and API processes", table(heads, h("tbody", null, rows)));
}

function device(worker) {
  const many = worker.num_devices > 1 ? `${worker.num_devices} × ` : "";
  return `${many}${worker.device ?? "unknown"}${worker.lanes === "light" ? ", scores and exports" : ""}${worker.takes_nodes ? ", also with others" : ""}`;
}

function step(job) {
  if (job.node === null) return `${job.project_id}: waits for ${count(job.nodes)} workers at a time`;
  const place = job.nodes > 1 ? `, node ${count(job.node)} of ${count(job.nodes)}` : "";
  const where = job.stage ? `${job.stage} ${count(job.step)} of ${count(job.total_steps)}` : "starting";
  return `${job.project_id}: ${where}${place}`;
}

function clock(seconds) {
  if (seconds === null) return "";
  const text = `${seconds < 0 ? "−" : "+"}${Math.abs(seconds).toFixed(1)} s`;
  return Math.abs(seconds) > MAX_CLOCK_SECONDS ? badge(`${text}: set up NTP`, "failed") : text;
}

function queueCard(queue) {
  if (!queue.length) return card("Queue", h("p.hint", null, "No job waits or runs."));
  const rows = queue.map((one) =>
    tableRow(
      one.project_id,
      count(one.num_running),
      count(one.num_queued),
      one.num_queued ? duration(one.oldest_queued_seconds) : "",
    ),
  );
  return card("Queue", table(["Project", "Running", "Waiting", "Oldest waits"], h("tbody", null, rows)));
}

function storageCard(projects) {
  const sorted = [...projects].sort((one, other) => other.stored_bytes - one.stored_bytes);
  const rows = sorted.map((one) =>
    tableRow(
      one.id,
      bytes(one.stored_bytes),
      one.max_stored_bytes === null
        ? "no bound"
        : [bar(one.stored_bytes / Math.max(1, one.max_stored_bytes), one.id), ` of ${bytes(one.max_stored_bytes)}`],
      mostly(one.stored),
    ),
  );
  return card("Storage", table(["Project", "Stores", "Of its bound", "Mostly"], h("tbody", null, rows)));
}

function mostly(stored) {
  const [kind, size] = Object.entries(stored).reduce((most, next) => (next[1] > most[1] ? next : most));
  const total = Object.values(stored).reduce((sum, value) => sum + value, 0);
  return total ? `${kind.replaceAll("_", " ")} (${percent(size / total, 0)})` : "";
}

function disksCard(processes) {
  const rows = processes.flatMap((one) =>
    one.disks.map((disk) =>
      tableRow(
        h("code", null, one.id),
        disk.what,
        disk.free_bytes < disk.reserve_bytes
          ? badge(`${bytes(disk.free_bytes)}: below the reserve`, "failed")
          : bytes(disk.free_bytes),
        bytes(disk.reserve_bytes),
      ),
    ),
  );
  if (!rows.length) return null;
  return card("Disks", table(["Process", "Disk", "Free", "Reserve"], h("tbody", null, rows)));
}
