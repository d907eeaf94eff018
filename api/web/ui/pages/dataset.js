// One dataset: the verdict, the report, the rows as jobs read them.

import { get, path, remove } from "../api.js";
import { RowsCard } from "../data/rows_card.js";
import { originOf, originPage, versionsCard } from "../data/versions_card.js";
import { warningsNotice } from "../form/data_warnings.js";
import { fill, h, icon, Region } from "../dom.js";
import { bytes, count, date, percent, plural } from "../format.js";
import { AnswersCard } from "../judging/answers_card.js";
import { ModelLabels } from "../judging/models.js";
import { poll } from "../live.js";
import {
  act,
  ask,
  badge,
  card,
  copyable,
  errorBox,
  facts,
  loading,
  moreButton,
  notice,
  table,
  tableRow,
  toast,
} from "../parts.js";
import { term } from "../words.js";

const POLL_MS = 1000;
const PAGE_ISSUES = 50;
/** Kinds of which rows, or answers to one prompt, can be compared. */
const JUDGED = ["preference", "responses"];

export async function open(main, context) {
  const [datasetId] = context.parameters;
  const { signal, setTitle, fail } = context;
  const address = path("datasets", datasetId);
  main.append(loading("dataset"));
  let dataset = await get(address, { signal });
  setTitle(dataset.name);
  const title = new Region("div", { class: "title-row" }, () => titleView(dataset, address));
  const body = h("div.stack");
  fill(main, h("div.stack", null, title.element, body));
  const show = () => {
    title.show(dataset);
    if (dataset.status === "processing") fill(body, card(null, loading("the verdict: every row is being checked")));
    else showChecked(body, dataset, address, context);
  };
  show();
  if (dataset.status !== "processing") return;
  const refresh = async () => {
    dataset = await get(address, { signal });
    if (dataset.status !== "processing") show();
    return dataset.status === "processing";
  };
  poll(signal, POLL_MS, refresh).catch(fail);
}

function titleView(dataset, address) {
  const isReady = dataset.status === "ready";
  return [
    h(
      "div",
      null,
      h("h1", { tabindex: "-1", "data-focus": "title" }, dataset.name, " ", badge(dataset.status)),
      h(
        "p.hint",
        null,
        copyable(dataset.id),
        " · ",
        term(dataset.kind),
        ` · ${bytes(dataset.num_bytes)} · version ${dataset.version}, by `,
        originPage(dataset) ? h("a", { href: originPage(dataset) }, originOf(dataset)) : originOf(dataset),
        ` · ${date(dataset.created_at)}`,
      ),
    ),
    h(
      "div.actions",
      null,
      isReady && dataset.kind !== "demonstration"
        ? h("a.button.primary", { href: `#/new?dataset_id=${dataset.id}` }, "Use in a job")
        : null,
      isReady && JUDGED.includes(dataset.kind) ? h("a.button", { href: `#/judgements/new?dataset_id=${dataset.id}` }, "Judge") : null,
      isReady ? h("a.button", { href: `#/generations/new?dataset_id=${dataset.id}` }, "Generate answers") : null,
      isReady ? h("a.button", { href: `${address}/content`, download: true }, icon("download"), "Original file") : null,
      deleteButton(dataset, address),
    ),
  ];
}

function deleteButton(dataset, address) {
  const isVersion = dataset.id.includes("@");
  const button = h("button.danger", { type: "button" }, icon("trash"), isVersion ? "Delete this version" : "Delete");
  button.addEventListener("click", () =>
    act(button, async () => {
      if (
        !(await ask(
          isVersion ? "Delete this version?" : "Delete this dataset?",
          `This deletes ${isVersion ? `version ${dataset.version} of “${dataset.name}”` : `“${dataset.name}” with all versions`}. Finished jobs keep their results.`,
          [{ value: "yes", label: "Delete", kind: "danger" }],
        ))
      )
        return;
      try {
        await remove(address);
      } catch (error) {
        refused(button, dataset, error);
        return;
      }
      toast("Deleted.");
      location.hash = isVersion ? `#${path("datasets", dataset.id.split("@")[0])}` : "#/datasets";
    }),
  );
  return button;
}

/** Why it is still there, and the jobs that need it. */
function refused(button, dataset, error) {
  const jobs = h("a", { href: `#/jobs?dataset_id=${dataset.id}` }, "Show the jobs that use it");
  const told = notice("error", h("strong", null, `“${dataset.name}” was not deleted`), h("p", null, error.message), jobs);
  told.setAttribute("role", "alert");
  document.querySelector(".refusal")?.remove();
  told.classList.add("refusal");
  button.closest(".title-row").after(told);
}

function showChecked(body, dataset, address, context) {
  const { signal } = context;
  const answers = dataset.status === "ready" && dataset.kind === "responses" ? answersOf(dataset, signal) : null;
  const rows = dataset.status === "ready" ? new RowsCard(dataset, context) : null;
  if (rows) rows.start();
  fill(
    body,
    verdict(dataset),
    warningsNotice(dataset.warnings),
    h("div.columns", null, h("div.stack", null, answers, issuesCard(dataset, address, signal, rows), rows?.element), h("div.stack", null, statisticsCard(dataset), judgingLinks(dataset), rows ? versionsCard(dataset, context) : null, rows?.tokens)),
  );
}

/** What models answered, prompt by prompt, under the names that people know them by. */
function answersOf(dataset, signal) {
  const labels = new ModelLabels(signal);
  const card = new AnswersCard(dataset.id, labels, signal);
  labels
    .learn(dataset.made_from?.models ?? [])
    .then(() => card.ask())
    .catch((error) => error.name !== "AbortError" && card.fail(error));
  return card.element;
}

function verdict({ status, report, num_rows: all, num_accepted: accepted, num_rejected: rejected, num_set_aside: aside }) {
  const text = [
    `${plural(all, "row")} read: ${count(accepted)} usable`,
    rejected ? [`, ${count(rejected)} `, term("malformed")] : null,
    aside ? [`, ${count(aside)} `, term("set aside"), `, since ${aside === 1 ? "it teaches" : "they teach"} nothing`] : null,
    ".",
  ];
  if (status === "ready") return notice("check", h("strong", null, "Ready to use"), h("p", null, text));
  const columns = suggestedColumns(report);
  return notice(
    "error",
    h("strong", null, "The file was refused"),
    all ? h("p", null, text) : null,
    h("p", null, columns ? "The columns have other names than expected; the report says which are probably meant." : adviceOf(report)),
    h(
      "div.actions",
      null,
      columns ? h("a.button", { href: `#/datasets?${new URLSearchParams({ columns })}` }, "Upload it again with these columns") : null,
      h("a.button", { href: "#/datasets" }, "Upload it again with other settings"),
    ),
  );
}

/** The mapping that the report suggests, as JSON; null where it has none. */
function suggestedColumns({ issues }) {
  const found = (issues ?? []).map(({ detail }) => /columns=(\{[^}]*\})/.exec(detail)?.[1]).find(Boolean);
  return found ?? null;
}

/** Skipping rows helps only where rows are at fault, not the file as a whole. */
function adviceOf({ issues }) {
  const errors = (issues ?? []).filter(({ severity }) => severity === "error");
  if (errors.some(({ line }) => line === null))
    return "The file as a whole cannot be read as it is: the report says why and what to change. Skipping rows would not help.";
  return "Fix the lines below and upload the file again, or upload it with “If a row is invalid: skip the row”.";
}

function issuesCard(dataset, address, signal, rows) {
  const counts = Object.entries(dataset.report.counts ?? {}).sort(([, a], [, b]) => b - a);
  if (!counts.length) return card("Report", h("p.muted", null, "No problems found."));
  const body = h("tbody");
  const more = moreButton(
    (cursor) => get(`${address}/report`, { query: { limit: PAGE_ISSUES, cursor }, signal }),
    (issues) => body.append(...issues.map((issue) => issueRow(issue, rows))),
    "Show more issues",
  );
  const trouble = h("div");
  more.start().catch((error) => error.name !== "AbortError" && fill(trouble, errorBox(error)));
  return card(
    "Report",
    h(
      "div.actions",
      null,
      counts.map(([code, number]) => h("span.badge", null, code, " ", count(number))),
    ),
    table(["Line", "", "Issue", "Where"], body),
    trouble,
    more.element,
  );
}

function issueRow({ line, severity, code, detail, pointer }, rows) {
  const jump = () => rows.jumpTo(line);
  const place = rows
    ? h("button.small", { type: "button", onclick: jump, "aria-label": `Show line ${line}` }, count(line))
    : count(line);
  return tableRow(
    line === null ? "file" : place,
    badge(severity),
    [detail, h("div.hint.mono", null, code)],
    pointer ? h("code", null, pointer) : null,
  );
}

/** Where the dataset is judged and answered. */
function judgingLinks({ id, status, kind }) {
  if (status !== "ready") return null;
  const root = id.split("@")[0];
  return card(
    "Judging",
    h(
      "ul",
      null,
      JUDGED.includes(kind) ? h("li", null, h("a", { href: `#/judgements?dataset_id=${root}` }, "Judgements of it")) : null,
      h("li", null, h("a", { href: `#/generations?dataset_id=${root}` }, "Generations with its prompts")),
    ),
  );
}

function statisticsCard({ report, format, sha256 }) {
  const statistics = report.statistics ?? {};
  const pairs = [
    ["Layout", format],
    ["Container", [statistics.container, statistics.compression].filter(Boolean).join(", ") || "–"],
  ];
  for (const [name, lengths] of Object.entries(statistics.chars ?? {}))
    pairs.push([
      `${name}, characters`,
      `median ${count(lengths.p50)}, 95 % up to ${count(lengths.p95)}, longest ${count(lengths.max)}`,
    ]);
  if (statistics.pairs?.longer_wins_share != null)
    pairs.push(["Longer one chosen", percent(statistics.pairs.longer_wins_share)]);
  if (statistics.duplicates)
    pairs.push(
      ["Distinct prompts", count(statistics.duplicates.distinct_prompts)],
      ["Duplicate rows", count(statistics.duplicates.duplicate_rows)],
      ["Pairs also reversed", count(statistics.duplicates.reversed_pairs)],
    );
  const languages = Object.entries(statistics.languages ?? {}).slice(0, 4);
  if (languages.length)
    pairs.push(["Languages", languages.map(([name, share]) => `${name} ${percent(share, 0)}`).join(", ")]);
  if (statistics.ignored_fields?.length) pairs.push(["Ignored fields", statistics.ignored_fields.join(", ")]);
  pairs.push(["SHA-256", copyable(sha256, `${sha256.slice(0, 16)}…`)]);
  return card("Statistics", facts(pairs));
}
