// Pairs that one model gets right and another does not, with their texts.

import { get, path, post, withQuery } from "../api.js";
import { fill, h } from "../dom.js";
import { signed } from "../format.js";
import { act, table, tableRow } from "../parts.js";

const SHOWN = 10;
const WAIT_SECONDS = 30;
const MAX_WAITS = 20;
/** Rows of a page of the API. */
const MAX_ROWS = 100;
/** Log-ratios, in nats, from which on a token has the full colour. */
const FULL = 2;
const LEVELS = 4;
const SIDES = ["chosen", "rejected"];

/** item: a difference of the comparison; the texts come from the dataset, ten at a time. */
export function changedPairs({ item, against, dataset, labels, signal }) {
  const list = h("div.stack");
  let next = 0;
  const more = h("button", { type: "button" }, "Show more");
  const show = async () => {
    const pairs = item.changed.slice(next, next + SHOWN);
    next += pairs.length;
    const made = await Promise.all(pairs.map((pair) => pairView(pair, { item, against, dataset, labels, signal })));
    list.append(...made);
    more.hidden = next >= item.changed.length;
  };
  more.addEventListener("click", () => act(more, show));
  act(more, show);
  const left = item.gained + item.lost - item.changed.length;
  return h(
    "section",
    { "aria-label": "Pairs that changed sides" },
    h("h3", null, `Pairs that changed sides: ${labels.get(item.job_id)}`),
    list,
    more,
    left > 0 ? h("p.hint", null, `${left} further ones are not listed.`) : null,
  );
}

async function pairView(pair, { item, against, dataset, labels, signal }) {
  const holder = h("article.pair");
  const address = path("datasets", dataset, "rows");
  const row = await get(address, { query: { line: pair.line, limit: Math.min(MAX_ROWS, pair.num_of_line + 1) }, signal })
    .then(({ data }) => rowOf(pair, data))
    .catch(() => null);
  const side = pair.margin > 0 ? "this job is right" : "the other one is right";
  return fill(
    holder,
    h("p", null, h("strong", null, placeOf(pair)), ` · ${side} · margin ${signed(pair.margin)} (${labels.get(item.job_id)}), ${signed(pair.margin_of_other)} (${labels.get(against)})`),
    row
      ? [
          h("dl", null, ["prompt", ...SIDES].map((part) => [h("dt", null, part), h("dd", null, h("pre", null, plain(row[part])))])),
          tokensButton(row, [item.job_id, against], labels, signal),
        ]
      : h("p.muted", null, "Its text is not there any more, or not to be told from those of other rows of its line."),
  );
}

/** The row of a pair; null where the line has rows that are not held out, so that it is not known which it is. */
function rowOf({ line, place, num_of_line: number }, rows) {
  const found = rows.filter((row) => row.line === line);
  return found.length === number ? found[place - 1] : null;
}

function placeOf({ line, place, num_of_line: number }) {
  return number === 1 ? `Line ${line}` : `Line ${line}, pair ${place} of ${number}`;
}

function plain(value) {
  return Array.isArray(value) ? value.map(({ role, content }) => `${role}: ${content}`).join("\n") : String(value ?? "");
}

/** Scores both responses under both models, token by token, and colours them. */
function tokensButton(row, jobs, labels, signal) {
  const holder = h("div");
  const button = h("button.quiet", { type: "button" }, "Colour the tokens");
  button.addEventListener("click", () =>
    act(button, async () => {
      const items = SIDES.map((side) => ({ prompt: row.prompt, response: row[side] }));
      const found = await Promise.all(jobs.map((id) => scored(id, items, signal)));
      const cell = (result) => (result.tokens ? coloured(result.tokens) : (result.error ?? "This worker is of a version that scores no tokens."));
      fill(
        holder,
        table(["", ...SIDES], jobs.map((id, place) => tableRow(labels.get(id), ...found[place].map(cell)))),
        h("p.hint", null, "Each token by log p of the model minus log p of its reference: green is likelier than before training, red is less likely; the figure is in each token's title."),
      );
      button.hidden = true;
    }),
  );
  return h("div", null, button, holder);
}

async function scored(jobId, items, signal) {
  const address = path("jobs", jobId, "scores");
  let answer = await post(withQuery(address, { wait: WAIT_SECONDS }), { items, tokens: true }, { signal, creates: true });
  for (let number = 0; number < MAX_WAITS && ["queued", "running"].includes(answer.status); number += 1)
    answer = await get(path("jobs", jobId, "scores", answer.id), { query: { wait: WAIT_SECONDS }, signal });
  if (!answer.results) throw new Error(answer.error ?? "The scores are not there yet; try again in a moment.");
  return answer.results;
}

export function coloured(tokens) {
  return h("span.tokens", null, tokens.map(({ text, log_ratio: ratio }) => h("span", { class: levelOf(ratio), title: ratio === null ? "unknown" : signed(ratio) }, text)));
}

function levelOf(ratio) {
  if (ratio === null) return "";
  const level = Math.min(LEVELS, Math.round((LEVELS * Math.abs(ratio)) / FULL));
  return level === 0 ? "" : `${ratio > 0 ? "up" : "down"}-${level}`;
}
