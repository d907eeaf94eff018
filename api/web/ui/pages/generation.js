// One generation, live: how far it is, and its answers, prompt by prompt.

import { get, path } from "../api.js";
import { fill, h, Region } from "../dom.js";
import { pageTitle, progressShare, steering } from "../entity.js";
import { count, plural, setting } from "../format.js";
import { AnswersCard } from "../judging/answers_card.js";
import { judgementTable } from "../judging/judgement_list.js";
import { ModelLabels } from "../judging/models.js";
import { HELD } from "../judging/words.js";
import { poll } from "../live.js";
import { card, facts, FINAL, loading, notice } from "../parts.js";

const POLL_MS = 2000;
const JUDGEMENTS = 20;

export async function open(main, { parameters, signal, setTitle, fail }) {
  main.append(loading("generation"));
  const address = path("generations", parameters[0]);
  const generation = await get(address, { signal });
  const labels = await new ModelLabels(signal).learn([...generation.requested.models, generation.requested.held_out_of ?? ""]);
  const page = new GenerationPage(generation, { address, labels, signal, setTitle });
  fill(main, page.element);
  await page.showAnswers();
  if (FINAL.has(generation.status)) return;
  const refresh = async () => {
    page.take(await get(address, { signal }));
    await page.showAnswers();
    return !FINAL.has(page.generation.status);
  };
  poll(signal, POLL_MS, refresh).catch(fail);
}

class GenerationPage {
  constructor(generation, { address, labels, signal, setTitle }) {
    this.steering = steering("generation", address, "generations", (now) => this.take(now));
    this.labels = labels;
    this.signal = signal;
    this.title = new Region("div", null, pageTitle);
    this.actions = new Region("div", { class: "actions" }, () => this.#actions());
    this.progress = new Region("div", null, progressView);
    this.about = new Region("div", null, () => aboutCard(this.generation, labels));
    this.answers = h("div");
    this.judgements = h("div");
    this.element = h(
      "div.stack",
      null,
      h("div.title-row", null, this.title.element, this.actions.element),
      this.progress.element,
      h("div.columns", null, h("div.stack", null, this.judgements, this.answers), h("div.stack", null, this.about.element)),
    );
    setTitle(generation.name ?? generation.id);
    this.take(generation);
  }

  /** Show the generation as it is now. */
  take(generation) {
    this.generation = generation;
    const { id, name, status, created_at: created, dataset_id: dataset } = generation;
    this.title.show({ id, name, status, created });
    this.actions.show({ status, dataset });
    this.progress.show({
      status,
      isHeld: generation.is_held,
      done: generation.num_done,
      number: generation.num_answers,
      failed: generation.num_failed,
      tokens: generation.num_tokens,
      failures: generation.failures.map((failure) => ({ ...failure, model: this.labels.of(failure.model) })),
      error: generation.error,
    });
    this.about.show(generation);
  }

  /** The answers, and what was judged of them, once there is a dataset. */
  async showAnswers() {
    const { dataset_id: dataset } = this.generation;
    if (!dataset || this.answers.firstChild) return;
    const answers = new AnswersCard(dataset, this.labels, this.signal);
    fill(this.answers, answers.element);
    const [, { data }] = await Promise.all([
      answers.ask(),
      get("/judgements", { query: { dataset_id: dataset, limit: JUDGEMENTS }, signal: this.signal }),
    ]);
    if (data.length) fill(this.judgements, card("Judgements of these answers", judgementTable(data, this.labels)));
  }

  #actions() {
    const { status, dataset_id: dataset, id } = this.generation;
    return [
      dataset ? h("a.button.primary", { href: `#/judgements/new?dataset_id=${dataset}` }, "Judge these answers") : null,
      dataset ? h("a.button", { href: `#${path("datasets", dataset)}` }, "Dataset") : null,
      h("a.button", { href: `#/generations/new?from=${id}` }, "New generation like this"),
      FINAL.has(status)
        ? this.steering.erase("The record of the generation is deleted; its dataset stays.")
        : this.steering.cancel("What has been answered so far is dropped."),
    ];
  }
}

function progressView({ status, isHeld, done, number, failed, tokens, failures, error }) {
  const told = failed
    ? notice(
        "warning",
        h("strong", null, `${plural(failed, "answer")} could not be given; they make no row`),
        h("ul", null, failures.map(({ model, prompt, detail }) => h("li", null, `${model}, prompt ${count(prompt + 1)}: ${detail}`))),
        failed > failures.length ? h("p.hint", null, `The first ${count(failures.length)} are told.`) : null,
      )
    : null;
  if (error) return [notice("error", h("strong", null, "The generation failed"), h("p", null, error)), told];
  if (status === "cancelled") return notice("info", "Cancelled; what had been answered was dropped.");
  if (FINAL.has(status)) return told;
  const queued = isHeld ? HELD : "Waits for a worker; those that train answer as well.";
  const waiting = status === "queued" || isHeld ? queued : `${count(done)} of ${plural(number, "answer")}, ${count(tokens)} tokens`;
  return [
    card(null, progressShare("Answers", done, number), h("p.hint", null, waiting)),
    told,
  ];
}

function aboutCard({ requested, source, num_prompts: prompts, num_answers: answers, num_failed: failed, num_tokens: tokens }, labels) {
  const { models, sampling, held_out_of: job, num_samples: samples, seed } = requested;
  const from = source ? h("a", { href: `#${path("datasets", source)}` }, source) : "listed in the request";
  return card(
    "What was asked",
    facts([
      ["Models", models.map((model) => h("div", null, labels.link(model)))],
      ["Prompts", [`${count(prompts)}, `, job ? ["held out by ", h("a", { href: `#${path("jobs", job)}` }, labels.of(job)), " of "] : "of ", from]],
      ["Samples", `${count(samples)} of each model to each prompt`],
      ["Answers", failed ? `${count(answers)}, ${count(failed)} of them not given` : count(answers)],
      ["Tokens", count(tokens)],
      ["Longest answer", `${count(sampling.max_tokens)} tokens`],
      ["Temperature", setting(sampling.temperature)],
      ["Top p", setting(sampling.top_p)],
      ["Seeds", `${setting(sampling.seed)} of answers, ${setting(seed)} of the draw`],
    ]),
  );
}
