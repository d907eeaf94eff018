// The pages of one job, and the way between them.

import { get, path } from "../api.js";
import { fill, h } from "../dom.js";
import { jobBadge, loading } from "../parts.js";

const PAGES = [
  ["", "Overview"],
  ["/pairs", "Pairs"],
  ["/scores", "Scores"],
  ["/log", "Log"],
];

export function jobTabs(jobId, current) {
  const link = ([suffix, label]) =>
    h("a", { href: `#${path("jobs", jobId)}${suffix}`, "aria-current": suffix === current ? "page" : null }, label);
  return h("nav.filters", { "aria-label": "Pages of the job" }, PAGES.map(link));
}

/** Title and tabs of a page beside the overview; returns the job. */
export async function openJobPage(main, { parameters, signal, setTitle }, current) {
  main.append(loading("job"));
  const job = await get(path("jobs", parameters[0]), { signal });
  const label = PAGES.find(([suffix]) => suffix === current)[1];
  setTitle(`${label} · ${job.name ?? job.id}`);
  const back = h("a", { href: `#${path("jobs", job.id)}` }, job.name ?? job.id);
  fill(
    main,
    h("div.title-row", null, h("h1", { tabindex: "-1" }, back, `: ${label.toLowerCase()} `, jobBadge(job))),
    jobTabs(job.id, current),
  );
  return job;
}
