// The pairs of a judgement with their verdicts: by verdict, searched, page by page.

import { get } from "../api.js";
import { textSide } from "../data/row_view.js";
import { fill, h } from "../dom.js";
import { count, metric, percent } from "../format.js";
import { badge, card, errorBox, loading, moreButton } from "../parts.js";
import { FAULTS } from "./words.js";

const PAGE = 10;
const TYPING_MS = 300;
const VERDICTS = { first: "First is better", second: "Second is better", tie: "Tie" };

export class PairsCard {
  /** `names` are the labels of the two models. */
  constructor(address, names, signal) {
    this.address = `${address}/pairs`;
    this.names = names;
    this.signal = signal;
    const [first, second] = names[0] === names[1] ? ["First", "Second"] : names;
    this.verdict = h(
      "select",
      { "aria-label": "Verdict" },
      [
        ["", "All pairs"],
        ["first", `${first} is better`],
        ["second", `${second} is better`],
        ["tie", "Ties"],
        ["failed", "Without a verdict"],
        ["open", "Not judged yet"],
      ].map(([value, label]) => h("option", { value }, label)),
    );
    this.search = h("input", { type: "search", "aria-label": "Search pairs", placeholder: "Search texts and reasons" });
    this.body = h("div", null, loading("pairs"));
    this.element = card("Pairs", h("div.tools", null, this.verdict, this.search), this.body);
    let timer = null;
    this.verdict.addEventListener("change", () => this.ask());
    this.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.ask(), TYPING_MS);
    });
  }

  /** Show the first page of what is asked for. */
  async ask() {
    const round = (this.round ?? 0) + 1;
    this.round = round;
    const query = { verdict: this.verdict.value, search: this.search.value.trim(), limit: PAGE };
    const list = h("div.stack");
    const note = h("p.muted");
    const more = moreButton(
      (cursor) => get(this.address, { query: { ...query, cursor }, signal: this.signal }),
      (pairs) => {
        list.append(...pairs.map((pair) => this.#view(pair)));
        note.hidden = list.childElementCount > 0;
      },
      query.search ? "Search further" : "Show more pairs",
    );
    try {
      await more.start();
      fill(note, query.search || query.verdict ? "No such pair so far." : "There are no pairs.");
      if (round === this.round) fill(this.body, note, list, more.element);
    } catch (error) {
      if (error.name !== "AbortError" && round === this.round) fill(this.body, errorBox(error, () => this.ask()));
    }
  }

  #view({ position, prompt, first, second, verdict, confidence, detail }) {
    const kind = (side) => (verdict === side ? "chosen" : verdict === null || verdict === "tie" ? "plain" : "rejected");
    const told = verdict ? badge(this.#verdictText(verdict), verdict === "tie" ? "cancelled" : "succeeded") : badge(detail.fault ? "without a verdict" : "not judged yet", detail.fault ? "failed" : "queued");
    return h(
      "article.row-view",
      { "aria-label": `Pair ${position}` },
      h(
        "div.title-row.flat",
        null,
        h("h3", null, `Pair ${count(position)}`),
        h("div.actions", null, told, confidence === null ? null : h("span.hint", { title: "How sure the judge is: 50 % is not at all" }, `confidence ${percent(confidence, 0)}`)),
      ),
      textSide("Prompt", "plain", prompt),
      h("div.two", null, textSide(this.names[0], kind("first"), first), textSide(this.names[1], kind("second"), second)),
      detailView(detail, this.names),
    );
  }

  #verdictText(verdict) {
    if (verdict === "tie" || this.names[0] === this.names[1]) return VERDICTS[verdict].toLowerCase();
    return `${this.names[verdict === "first" ? 0 : 1]} is better`;
  }
}

/** Why the judge says so: its reason, both orders, scores, votes, or what went wrong. */
function detailView({ reason, reason_swapped: swapped, verdicts, scores, num_votes: votes, fault }, names) {
  const lines = [];
  if (fault) lines.push(FAULTS[fault]?.[1] ?? fault);
  if (reason) lines.push(verdicts ? `Reason: ${reason}` : reason);
  if (swapped) lines.push(`Reason with the answers swapped: ${swapped}`);
  if (verdicts && verdicts[0] !== verdicts[1]) lines.push("The two orders gave different verdicts, so it counts as a tie.");
  if (scores) lines.push(`Scores: ${scores.map((score, place) => `${names[place]} ${Number.isInteger(score) ? count(score) : metric(score)}`).join(", ")}`);
  if (votes) lines.push(`${count(votes)} ${votes === 1 ? "vote" : "votes"}`);
  return lines.map((line) => h("p.hint", null, line));
}
