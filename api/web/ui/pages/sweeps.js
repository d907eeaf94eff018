// All sweeps, live.

import { path } from "../api.js";
import { h } from "../dom.js";
import { pathName } from "../form/layout.js";
import { plural, setting } from "../format.js";
import { column, liveList } from "../live_list.js";
import { badge, empty } from "../parts.js";
import { badgeKind, metricName, valueText } from "../sweep/words.js";

const COLUMNS = [
  column("Status", ({ status }) => status, (status) => badge(status, badgeKind(status))),
  column("Jobs", ({ num_members: number, counts }) => ({ number, counts }), jobsCell),
  column("Best so far", bestOf, bestCell, { label: "Best" }),
];

export async function open(main, { signal, fail }) {
  const content = h("div");
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "Sweeps")), content);
  await liveList(content, { what: "sweeps", head: "Sweep", columns: COLUMNS, nothing, signal, fail });
}

function nothing() {
  return empty(
    "No sweeps yet",
    "A sweep runs one job with several values of a setting, such as beta, and names the best by its held-out rows. Start one in the form of a job, under “Sweep”.",
    h("a.button.primary", { href: "#/new" }, "New job"),
  );
}

function jobsCell({ number, counts }) {
  return [plural(number, "job"), h("div.hint", null, Object.entries(counts).map(([word, many]) => `${many} ${word}`).join(", "))];
}

function bestOf({ members, best_job_id: best, metric }) {
  return { member: members.find((member) => member.job_id === best) ?? null, metric };
}

function bestCell({ member, metric }) {
  if (!member) return h("span.muted", null, "–");
  return [
    h("a", { href: `#${path("jobs", member.job_id)}` }, Object.entries(member.overrides).map(([name, value]) => `${pathName(`/${name}`)} ${setting(value)}`).join(", ")),
    h("div.hint", null, `${metricName(metric)}: ${valueText(metric, member.value)}`),
  ];
}
