// The rows of a dataset: searched, from a line on, as a base model sees them, and chosen for a job without them.

import { get, listAll, path } from "../api.js";
import { fill, h } from "../dom.js";
import { count, plural } from "../format.js";
import { act, card, errorBox, facts, moreButton, notice } from "../parts.js";
import { makeVersion } from "./versions_card.js";
import { rowView } from "./row_view.js";

const PAGE = 5;
const TYPING_MS = 300;
const MAX_LENGTH = 1024;

export class RowsCard {
  #excluded = new Set();
  #swapped = new Set();
  #where = { search: "", line: "", base_model: "" };

  constructor(dataset, { signal }) {
    this.dataset = dataset;
    this.address = path("datasets", dataset.id);
    this.signal = signal;
    this.search = h("input", { type: "search", "aria-label": "Search rows", placeholder: "Search rows" });
    this.line = h("input", { type: "number", min: "1", "aria-label": "From line", placeholder: "From line" });
    this.model = h("select", { "aria-label": "Seen by" }, h("option", { value: "" }, "As jobs read them"));
    this.choice = h("div", { role: "status" });
    this.body = h("div.stack");
    this.tokens = h("div");
    const tools = h("div.tools", null, this.search, this.line, this.model);
    this.element = card("Rows", tools, this.choice, this.body);
    let timer = null;
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.ask({ search: this.search.value.trim(), line: this.line.value }), TYPING_MS);
    };
    for (const control of [this.search, this.line]) control.addEventListener("input", soon);
    this.model.addEventListener("change", () => this.ask({ base_model: this.model.value }));
  }

  start() {
    this.ask({});
    this.#offerModels().catch(() => {}); // the rows are there without them
  }

  /** Show the rows from a line of the file on. */
  jumpTo(line) {
    this.line.value = String(line);
    this.search.value = "";
    this.ask({ search: "", line: String(line) });
    this.element.scrollIntoView({ block: "start" });
  }

  async ask(changes) {
    Object.assign(this.#where, changes);
    const where = { ...this.#where, max_length: this.#where.base_model ? MAX_LENGTH : "" };
    const rows = h("div.stack");
    const note = h("p.hint");
    const more = moreButton(
      (cursor) => get(`${this.address}/rows`, { query: { ...where, limit: PAGE, cursor }, signal: this.signal }),
      (page) => rows.append(...page.map((row) => rowView(row, this.#controls(row)))),
      where.search ? "Search further" : "Show more rows",
    );
    try {
      await more.start();
      const first = rows.querySelector("article");
      if (!first) fill(note, where.search ? "No row has this text so far." : "No usable row from this line on.");
      else if (where.line && !first.ariaLabel.endsWith(` ${where.line}`) && !where.search)
        fill(note, `Line ${where.line} is not among the usable rows; the next one is shown.`);
      fill(this.body, note.textContent ? note : null, rows, more.element);
    } catch (error) {
      if (error.name !== "AbortError") fill(this.body, errorBox(error));
    }
    this.#showTokens(where).catch((error) => fill(this.tokens, errorBox(error)));
  }

  async #offerModels() {
    const models = await listAll("/models", { signal: this.signal, pages: 1 });
    this.model.append(...models.map(({ name, job_name: title }) => h("option", { value: name }, `As ${title ?? name} sees them`)));
  }

  async #showTokens({ base_model: model }) {
    if (this.tokensOf === model) return;
    this.tokensOf = model;
    if (!model) return fill(this.tokens);
    const query = { base_model: model, max_length: MAX_LENGTH };
    fill(this.tokens, tokensCard(await get(`${this.address}/tokens`, { query, signal: this.signal })));
  }

  #controls({ line }) {
    if (["demonstration", "responses"].includes(this.dataset.kind)) return [];
    const box = (set, other, label) => {
      const control = h("input", { type: "checkbox", checked: set.has(line) });
      const element = h("label.check", null, control, label);
      control.addEventListener("change", () => {
        if (control.checked) set.add(line);
        else set.delete(line);
        if (control.checked && other.delete(line))
          for (const item of element.parentElement.querySelectorAll("input")) item.checked = item === control;
        this.#showChoice();
      });
      return element;
    };
    const swap = this.dataset.kind === "preference" ? "Swap chosen and rejected" : "Turn the mark around";
    return [box(this.#excluded, this.#swapped, "Leave out"), box(this.#swapped, this.#excluded, swap)];
  }

  #showChoice() {
    const lines = { exclude_lines: [...this.#excluded], swap_lines: [...this.#swapped] };
    const given = Object.entries(lines).filter(([, list]) => list.length);
    if (!given.length) return fill(this.choice);
    const query = new URLSearchParams({ dataset_id: this.dataset.id, ...Object.fromEntries(given) });
    const text = `${plural(lines.exclude_lines.length, "row")} left out, ${count(lines.swap_lines.length)} swapped`;
    const change = { base_version: this.dataset.version, drop_lines: lines.exclude_lines, swap_lines: lines.swap_lines };
    const make = h("button", { type: "button", onclick: () => act(make, () => makeVersion(this.dataset, change)) }, "Make a version with these changes");
    return fill(
      this.choice,
      notice(
        "info",
        h("strong", null, text),
        h("p", null, "A job can read this version so; a new version keeps the changes for all jobs."),
        h("div.actions", null, h("a.button.primary", { href: `#/new?${query}` }, "New job with these changes"), make),
      ),
    );
  }
}

function tokensCard(found) {
  const lengths = ({ p50, p95, max }) => `median ${count(p50)}, 95 % up to ${count(p95)}, longest ${count(max)}`;
  const names = { row: "Prompt and longest response", prompt: "Prompt", chosen: "Chosen", rejected: "Rejected", response: "Response" };
  const rows = `${count(found.num_rows)} ${found.is_exact ? "rows" : "rows looked at"}`;
  return card(
    `Tokens of ${found.base_model}`,
    facts([
      ["Rows", rows],
      ...Object.entries(found.lengths).map(([name, values]) => [names[name] ?? name, lengths(values)]),
      [`Over ${count(found.max_length)} tokens`, count(found.num_over_max_length)],
      ["Equal once rendered", count(found.num_equal_once_rendered)],
      ["Cannot be encoded", count(found.num_unencodable)],
    ]),
    h("p.hint", null, "Rows over the limit, equal once rendered or not encodable are set aside by a job that keeps the default length."),
  );
}
