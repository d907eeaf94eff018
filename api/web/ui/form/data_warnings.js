// What to know of a dataset before a job trains on it: its warnings, and what a base model cannot use of its rows.

import { h } from "../dom.js";
import { count, plural } from "../format.js";
import { notice } from "../parts.js";

/** A notice of the warnings; null where there are none. */
export function warningsNotice(warnings, title = "Before you train on it") {
  if (!warnings.length) return null;
  return notice("warning", h("strong", null, title), list(warnings));
}

/** For the form of a job: what stands against it, the warnings of its datasets, and rows that the base model cannot use. */
export function beforeTheJob({ warnings, rows, spec, estimate }, request) {
  const against = [];
  if (rows?.is_exact && rows.num_rows > 0 && numUnusable(rows) >= rows.num_rows)
    against.push("No row of this dataset can be trained on: the job would fail.");
  if (request.validation_dataset_id === request.dataset_id)
    against.push("The dataset is trained on and held out at once: its validation says nothing.");
  const aside = [...(rows ? rowRemarks(rows) : []), ...fewRows(spec, splitOf(spec, rows, estimate))];
  const items = (texts) => (texts.length ? h("ul", null, texts.map((text) => h("li", null, text))) : null);
  return [
    against.length ? notice("error", h("strong", null, "This job cannot give a result"), items(against)) : null,
    warnings.length || aside.length
      ? notice("warning", h("strong", null, "Before you start"), warnings.length ? list(warnings) : null, items(aside))
      : null,
  ];
}

/** Rows that the job would set aside, of those looked at. */
export function numUnusable(rows) {
  return rows.num_over_max_length + rows.num_equal_once_rendered + rows.num_unencodable;
}

const FEW_TRAINED = 50;
const FEW_HELD_OUT = 30;

/** Rows to train on and held out: as the service has counted them, or by the share alone where it has not yet. */
export function splitOf(spec, rows, estimate) {
  if (estimate?.is_exact && estimate.num_train_rows !== null) return [estimate.num_train_rows, estimate.num_validation_rows];
  const usable = spec.num_pairs - (rows?.is_exact ? numUnusable(rows) : 0);
  const train = Math.round(usable * (1 - spec.validation_fraction));
  return [train, usable - train];
}

function fewRows(spec, [train, held]) {
  const usable = spec.validation_dataset_id ? train : train + held;
  const remarks = [];
  if (usable > 0 && usable < FEW_TRAINED)
    remarks.push(`${plural(usable, "row")} is little to learn from: a model learns these by heart. Use hundreds.`);
  if (!spec.validation_dataset_id && spec.validation_fraction === 0)
    remarks.push("Nothing is held out, so the job cannot tell learning from learning by heart.");
  else if (!spec.validation_dataset_id && held < FEW_HELD_OUT)
    remarks.push(`About ${plural(held, "row")} held out: too few to tell a better model from chance. Thirty is the least.`);
  return remarks;
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
