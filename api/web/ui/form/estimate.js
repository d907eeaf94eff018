// What a job would take before it runs, and beside what it took.

import { h } from "../dom.js";
import { bytes, count, duration, plural } from "../format.js";
import { card } from "../parts.js";

export function estimateCard(estimate) {
  const rows = [];
  const add = (name, ...value) => rows.push(h("tr", null, h("td", null, name), h("td", null, ...value)));
  if (estimate.num_train_rows !== null)
    add("Rows", `${estimate.is_exact ? "" : "about "}${count(estimate.num_train_rows)} to train on, ${count(estimate.num_validation_rows)} held out`);
  if (Object.keys(estimate.tokens).length) add("Tokens", byStage(estimate.tokens));
  if (Object.keys(estimate.steps).length) add("Steps", byStage(estimate.steps));
  for (const [stage, job] of Object.entries(estimate.reused_stages)) add(`${title(stage)} taken over`, `from ${job}`);
  for (const worker of estimate.workers) addWorker(add, worker);
  if (estimate.disk)
    add("Disk", `${bytes(estimate.disk.checkpoint_bytes)} of checkpoints, ${bytes(estimate.disk.artifact_bytes)} published`);
  if (estimate.queue) add("Queue", place(estimate.queue, estimate.reason));
  return card(
    "What it will take",
    estimate.reason ? h("p.hint", null, estimate.reason) : null,
    h("table.tight", null, h("tbody", null, rows)),
  );
}

function addWorker(add, worker) {
  add("Worker", `${worker.num_workers} × ${worker.device_class}`);
  if (worker.seconds)
    add("Time", interval(worker.seconds), h("span.hint", null, `, from ${plural(worker.num_measured_jobs, "earlier job")}`));
  if (worker.peak_memory_bytes === null) return;
  const of = worker.memory_bytes === null ? "" : ` of ${bytes(worker.memory_bytes)}`;
  add("Peak memory", `${bytes(worker.peak_memory_bytes)}${of}${worker.fits === false ? ": more than it has" : ""}`);
}

/** The estimate of a job that is queued, runs or has ended, with what it took. */
export function comparisonCard({ estimate, actual }) {
  if (!estimate?.seconds) return [];
  const row = (name, expected, took) =>
    h("tr", null, h("td", null, name), h("td", null, expected), h("td", null, took ?? "–"));
  const steps = (numbers) => (numbers && Object.keys(numbers).length ? byStage(numbers) : null);
  return card(
    "Estimate",
    h(
      "table.tight",
      null,
      h("thead", null, h("tr", null, h("td"), h("th", { scope: "col" }, "Expected"), h("th", { scope: "col" }, "Took"))),
      h(
        "tbody",
        null,
        row("Time", interval(estimate.seconds), actual ? duration(actual.seconds) : null),
        row("Peak memory", bytes(estimate.peak_memory_bytes), actual?.peak_memory_bytes ? bytes(actual.peak_memory_bytes) : null),
        row("Steps", byStage(estimate.steps), steps(actual?.steps)),
        row("Tokens", byStage(estimate.tokens), steps(actual?.tokens)),
      ),
    ),
  );
}

function place({ position, starts_in_seconds: starts, reason }, known) {
  if (starts === null) return reason === known ? `place ${position}` : `place ${position}. ${reason}`;
  return `place ${position}, ${starts.high ? `starts in ${interval(starts)}` : "starts at once"}`;
}

function interval({ low, high }) {
  return `${duration(low)} to ${duration(high)}`;
}

function byStage(numbers) {
  return Object.entries(numbers)
    .map(([stage, number]) => `${title(stage)} ${count(number)}`)
    .join(", ");
}

function title(stage) {
  return stage === "sft" || stage === "dpo" ? stage.toUpperCase() : stage[0].toUpperCase() + stage.slice(1);
}
