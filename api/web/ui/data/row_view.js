// One row of a dataset: as jobs read it, or as a base model sees it.

import { h } from "../dom.js";
import { count } from "../format.js";

/** Letters from which on a text may be higher than its box. */
const LONG = 300;

/** The row's texts; with `preview`, its tokens, those that a loss is taken on marked. */
export function rowView(row, ...controls) {
  if (row.preview) return seenView(row, controls);
  const answers =
    "chosen" in row
      ? [textSide("Chosen", "chosen", row.chosen), textSide("Rejected", "rejected", row.rejected)]
      : [textSide(answerTitle(row), "label" in row && !row.label ? "rejected" : "chosen", row.response)];
  return h(
    "article.row-view",
    { "aria-label": `Line ${row.line}` },
    h("div.title-row.flat", null, h("h3", null, `Line ${count(row.line)}`), h("div.actions", null, controls)),
    textSide("Prompt", "plain", row.prompt),
    row.tools ? h("p.hint", null, `Tools: ${row.tools.map((tool) => tool.function?.name).join(", ")}`) : null,
    h("div.two", null, answers),
  );
}

function answerTitle(row) {
  if (!("label" in row)) return row.model ? `Response of ${row.model}` : "Response";
  return row.label ? "Response, marked good" : "Response, marked bad";
}

/** A text, or messages, under a title. */
export function textSide(title, kind, text) {
  const content = Array.isArray(text)
    ? text.map(messageView)
    : text || h("span.muted", null, "(empty)");
  // A text that may scroll can be reached by keyboard.
  const reachable = lengthOf(text) > LONG ? { tabindex: "0", role: "group", "aria-label": title } : {};
  return h("div", null, h("span.side-title", null, title), h("div.text", { class: kind, ...reachable }, content));
}

function lengthOf(text) {
  return Array.isArray(text) ? LONG + 1 : (text ?? "").length + 40 * ((text ?? "").split("\n").length - 1);
}

function messageView({ role, content, reasoning_content: thought, tool_calls: calls, train }) {
  return h(
    "div",
    null,
    h("span.role", null, train === false ? `${role}, not trained on` : role),
    thought ? h("div.muted", null, `Reasoning: ${thought}`) : null,
    content,
    (calls ?? []).map(({ function: called }) =>
      h("code", null, `${called.name}(${JSON.stringify(called.arguments)})`),
    ),
  );
}

const TITLES = { prompt: "Prompt", chosen: "Chosen", rejected: "Rejected", response: "Response" };

function seenView(row, controls) {
  const { texts, num_tokens: total, fits, problem } = row.preview;
  const note = problem ?? (fits ? null : "Longer than the job's longest row: a job sets it aside.");
  return h(
    "article.row-view",
    { "aria-label": `Line ${row.line}` },
    h(
      "div.title-row.flat",
      null,
      h("h3", null, `Line ${count(row.line)}`, total === null ? "" : ` · ${count(total)} tokens`),
      h("div.actions", null, controls),
    ),
    note ? h("p.error-text", null, note) : null,
    Object.entries(texts).map(([name, text]) =>
      h(
        "div",
        null,
        h("span.side-title", null, `${TITLES[name] ?? name}, ${count(text.num_tokens)} tokens`),
        h("div.text", { class: name, tabindex: "0", role: "group", "aria-label": TITLES[name] ?? name }, tokensView(text)),
      ),
    ),
  );
}

/** Neighbours that are scored alike are one element; the tokens in it are told apart by their shade. */
function tokensView({ tokens, scored, num_tokens: total }) {
  const spans = tokens.map((token, place) =>
    h("span", { class: `token${scored[place] ? " is-scored" : ""}${place % 2 ? " is-odd" : ""}`, title: scored[place] ? "scored" : "context" }, token),
  );
  return total > tokens.length ? [spans, h("span.muted", null, ` … ${count(total - tokens.length)} more`)] : spans;
}
