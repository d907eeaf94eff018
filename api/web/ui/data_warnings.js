// What to know of a dataset before a job trains on it: its warnings, and what a base model cannot use of its rows.

import { h } from "./dom.js";
import { count, plural } from "./format.js";
import { notice } from "./parts.js";

/** A notice of the warnings; null where there are none. */
export function warningsNotice(warnings, title = "Before you train on it") {
  if (!warnings.length) return null;
  return notice("warning", h("strong", null, title), list(warnings));
}

/** For the form of a job: the warnings of its datasets, and how many rows the base model has no use for. */
export function beforeTheJob(warnings, rows) {
  const aside = rows ? rowRemarks(rows) : [];
  if (!warnings.length && !aside.length) return null;
  return notice(
    "warning",
    h("strong", null, "Before you start"),
    warnings.length ? list(warnings) : null,
    aside.length
      ? h(
          "ul",
          null,
          aside.map((text) => h("li", null, text)),
        )
      : null,
  );
}

export function warningsText(warnings) {
  return warnings.length ? plural(warnings.length, "warning") : null;
}

function list(warnings) {
  return h(
    "ul",
    null,
    warnings.map(({ code, detail }) => h("li", null, detail, " ", h("span.hint.mono", null, code))),
  );
}

function rowRemarks(rows) {
  const of = `of ${count(rows.num_rows)} ${rows.is_exact ? "rows" : "rows looked at"}`;
  const remarks = [];
  const add = (number, text) => number && remarks.push(`${count(number)} ${of} ${text}`);
  add(rows.num_over_max_length, `have more than ${count(rows.max_length)} tokens and would be set aside.`);
  if (rows.context_length !== null && rows.context_length < rows.max_length)
    add(rows.num_over_context, `have more tokens than the base model's context of ${count(rows.context_length)}.`);
  add(rows.num_equal_once_rendered, "have the same chosen and rejected tokens once rendered, and would be set aside.");
  for (const { detail, num_rows: number } of rows.problems) add(number, `would be set aside: ${detail}`);
  return remarks;
}
