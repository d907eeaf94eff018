// Answers of a dataset of responses by prompt: models side by side, samples below each other; searched, page by page.

import { get, path } from "../api.js";
import { textSide } from "../data/row_view.js";
import { fill, h } from "../dom.js";
import { count } from "../format.js";
import { card, errorBox, loading, moreButton } from "../parts.js";

const PAGE = 10;
const TYPING_MS = 300;
/** Samples of one model that are open at once; the others fold. */
const OPEN_SAMPLES = 3;

export class AnswersCard {
  #prompts = [];
  #hidden = new Set();

  /** `labels` are a `ModelLabels`. */
  constructor(datasetId, labels, signal) {
    this.address = `${path("datasets", datasetId)}/answers`;
    this.labels = labels;
    this.signal = signal;
    const search = h("input", { type: "search", "aria-label": "Search prompts and answers", placeholder: "Search prompts and answers" });
    let timer = null;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.ask(search.value.trim()), TYPING_MS);
    });
    this.choices = h("div.choices", { role: "group", "aria-label": "Models shown" });
    this.list = h("div.stack");
    this.body = h("div", null, loading("answers"));
    this.element = card("Answers by prompt", h("div.tools", null, search, this.choices), this.body);
  }

  /** Show the first page of what holds a text. */
  async ask(search = "") {
    const round = (this.round ?? 0) + 1;
    this.round = round;
    this.#prompts = [];
    fill(this.list);
    const more = moreButton(
      (cursor) => get(this.address, { query: { limit: PAGE, cursor, search }, signal: this.signal }),
      (prompts) => {
        if (round === this.round) this.#add(prompts);
      },
      "Show more prompts",
    );
    try {
      await more.start();
      if (round !== this.round) return;
      const nothing = h("p.muted", null, search ? "No prompt and no answer has this text." : "There are no answers.");
      fill(this.body, this.#prompts.length ? [this.list, more.element] : nothing);
    } catch (error) {
      if (error.name !== "AbortError" && round === this.round) fill(this.body, errorBox(error, () => this.ask(search)));
    }
  }

  fail(error) {
    fill(this.body, errorBox(error, () => this.ask()));
  }

  #add(prompts) {
    this.#prompts.push(...prompts);
    this.list.append(...prompts.map((prompt) => this.#view(prompt)));
    this.#showChoices();
  }

  #models() {
    return [...new Set(this.#prompts.flatMap(({ answers }) => answers.map(({ model }) => model)))];
  }

  #showChoices() {
    const models = this.#models();
    const box = (model) => {
      const control = h("input", { type: "checkbox", checked: !this.#hidden.has(model) });
      control.addEventListener("change", () => {
        if (control.checked) this.#hidden.delete(model);
        else this.#hidden.add(model);
        fill(this.list, this.#prompts.map((prompt) => this.#view(prompt)));
      });
      return h("label.check", null, control, h("span", null, this.#labelOf(model)));
    };
    fill(this.choices, models.length > 1 ? models.map(box) : null);
  }

  #labelOf(model) {
    return model ? this.labels.of(model) : "No model named";
  }

  #view({ position, prompt, tools, answers }) {
    const models = this.#models().filter((model) => !this.#hidden.has(model) && answers.some((answer) => answer.model === model));
    return h(
      "article.row-view",
      { "aria-label": `Prompt ${position}` },
      h("h3", null, `Prompt ${count(position)}`),
      textSide("Prompt", "plain", prompt),
      tools?.length ? h("p.hint", null, `Tools: ${tools.map((tool) => tool.function?.name).join(", ")}`) : null,
      h("div.answers", null, models.map((model) => this.#column(model, answers.filter((answer) => answer.model === model)))),
    );
  }

  #column(model, answers) {
    const title = (place) => (answers.length > 1 ? `${this.#labelOf(model)}, sample ${place + 1}` : this.#labelOf(model));
    const all = answers.map(({ response }, place) => textSide(title(place), "policy", response));
    const [open, folded] = [all.slice(0, OPEN_SAMPLES), all.slice(OPEN_SAMPLES)];
    return h("div.stack", null, open, folded.length ? h("details", null, h("summary", null, `${count(folded.length)} more samples`), h("div.stack", null, folded)) : null);
  }
}
