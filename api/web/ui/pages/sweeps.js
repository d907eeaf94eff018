// All sweeps, live.

import { path } from "../api.js";
import { h, Region } from "../dom.js";
import { pathName } from "../form/layout.js";
import { ago, plural, setting } from "../format.js";
import { liveList } from "../live_list.js";
import { badge, empty } from "../parts.js";
import { badgeKind, metricName, valueText } from "../sweep/words.js";

const HEADS = ["Sweep", "Status", "Jobs", "Best so far", "Created"];

export async function open(main, { signal, fail }) {
  const content = h("div");
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "Sweeps")), content);
  await liveList(content, { address: "/sweeps", heads: HEADS, makeRow, nothing, what: "sweeps", signal, fail });
}

function nothing() {
  return empty(
    "No sweeps yet",
    "A sweep runs one job with several values of a setting, such as beta, and names the best by its held-out rows. Start one in the form of a job, under “Sweep”.",
    h("a.button.primary", { href: "#/new" }, "New job"),
  );
}

function makeRow(sweep) {
  const status = new Region("td", { "data-label": "Status" }, (word) => badge(word, badgeKind(word)));
  const jobs = new Region("td", { "data-label": "Jobs" }, ({ number, counts }) => [
    plural(number, "job"),
    h("div.hint", null, Object.entries(counts).map(([word, many]) => `${many} ${word}`).join(", ")),
  ]);
  const best = new Region("td", { "data-label": "Best" }, bestCell);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const name = h("td.name", null, h("a", { href: `#${path("sweeps", sweep.id)}` }, sweep.name ?? sweep.id), sweep.name ? h("div.muted.mono", null, sweep.id) : null);
  const element = h("tr", null, name, status.element, jobs.element, best.element, created.element);
  const update = (now) => {
    status.show(now.status);
    jobs.show({ number: now.num_members, counts: now.counts });
    best.show({ member: now.members.find((member) => member.job_id === now.best_job_id) ?? null, metric: now.metric });
    created.show(ago(now.created_at));
  };
  return { element, update };
}

function bestCell({ member, metric }) {
  if (!member) return h("span.muted", null, "–");
  return [
    h("a", { href: `#${path("jobs", member.job_id)}` }, Object.entries(member.overrides).map(([name, value]) => `${pathName(`/${name}`)} ${setting(value)}`).join(", ")),
    h("div.hint", null, `${metricName(metric)}: ${valueText(metric, member.value)}`),
  ];
}
