// The jobs that a sweep stands for, and what they would take together, before any is queued.

import { h } from "../dom.js";
import { bytes, duration, percent, plural, setting } from "../format.js";
import { card, table, tableRow } from "../parts.js";
import { pathName } from "./layout.js";

const STAGES = { sft: "SFT", reference: "Reference" };

export function sweepPreviewCard(preview) {
  const rows = [["Jobs", plural(preview.num_members, "job")]];
  if (preview.seconds) rows.push(["Time of all", `${duration(preview.seconds.low)} to ${duration(preview.seconds.high)}`]);
  if (preview.peak_memory_bytes !== null) rows.push(["Peak memory of one", bytes(preview.peak_memory_bytes)]);
  for (const [stage, number] of Object.entries(preview.num_shared))
    if (number) rows.push([STAGES[stage], `computed once, taken over by ${plural(number, "job")}`]);
  if (preview.rungs.length)
    rows.push(["Compared at", `${preview.rungs.map((share) => percent(share)).join(", ")} of their steps; ${percent(preview.work_share)} of the steps of all are taken`]);
  rows.push(["Workers", preview.num_workers ? plural(preview.num_workers, "worker") : "none is running"]);
  return card(
    "What the sweep will take",
    preview.reason ? h("p.hint", null, preview.reason) : null,
    h("table.tight", null, h("tbody", null, rows.map((cells) => tableRow(...cells)))),
    h("details", null, h("summary", null, `The ${plural(preview.num_members, "job")}`), membersTable(preview.members)),
  );
}

function membersTable(members) {
  const paths = pathsOf(members);
  return table(
    ["", ...paths.map((path) => pathName(`/${path}`))],
    members.map((member, index) => tableRow(String(index + 1), ...paths.map((path) => (path in member ? setting(member[path]) : "–")))),
  );
}

/** Every setting that one of the members has, in the order of the first ones. */
export function pathsOf(members) {
  return [...new Set(members.flatMap((member) => Object.keys(member)))];
}
