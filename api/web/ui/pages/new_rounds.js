// The form of rounds: the job that each of them trains, who judges, and what they will do before anything is made.

import { get, listAll, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { datasetText, modelText, noData, noModel, withNamed } from "../form/choices.js";
import { JobForm } from "../form/job_form.js";
import { markFaults } from "../form/plain.js";
import { act, card, errorBox, loading, notice, toast } from "../parts.js";
import { previewCard } from "../rounds/preview_card.js";
import { RequestFields } from "../rounds/request_fields.js";

const PREVIEW_MS = 300;
const JOB = "/job";
/** Settings of a job that have no meaning in a round. */
const NOT_IN_A_ROUND = ["/exclude_lines", "/swap_lines", "/dataset_version", "/name"];
const OF_ROUNDS = {
  without: { preference: [...NOT_IN_A_ROUND, "/sft", "/sft/"], supervised: NOT_IN_A_ROUND, reward: NOT_IN_A_ROUND },
  data: { kinds: ["preference", "unpaired", "demonstration", "responses"], rows: "preference" },
  hints: {
    "/dataset_id": "Its prompts are answered; some of them are held out.",
    "/base_model": "Where the rounds start.",
    "/method": "Preference: a preference loss on the pairs of a round. Supervised: rejection sampling, on the best answers alone.",
  },
};

export async function open(main, { query, signal }) {
  main.append(loading("the form"));
  const from = query.get("from");
  const [models, variants, listed, jobs, source] = await Promise.all([
    listAll("/models", { signal }),
    get("/variants", { signal }),
    listAll("/datasets", { signal }),
    listAll("/jobs", { query: { status: "succeeded" }, signal, pages: 2 }),
    from ? get(path("rounds", from), { signal }) : null,
  ]);
  const given = history.state?.draft ?? source?.requested ?? { job: { dataset_id: query.get("dataset_id") ?? undefined, base_model: query.get("base_model") ?? undefined } };
  const datasets = await withNamed(listed, [given.job.dataset_id, given.job.validation_dataset_id, given.evaluation?.dataset_id], signal);
  fill(main, h("div.title-row", null, h("h1", { tabindex: "-1" }, "New rounds")));
  if (!models.length) main.append(noModel());
  else if (!datasets.length) main.append(noData());
  else main.append(new RoundsForm(given, { models, variants, datasets, jobs, signal }).element);
}

class RoundsForm {
  #timer = null;
  #asked = new AbortController();

  constructor(given, { models, variants, datasets, jobs, signal }) {
    this.signal = signal;
    this.job = new JobForm(
      {
        models: models.map((model) => [model.name, modelText(model)]),
        variants: variants.data,
        datasets: datasets.map((dataset) => ({ id: dataset.id, kind: dataset.kind, text: datasetText(dataset) })),
      },
      given.job,
      OF_ROUNDS,
    );
    const rewarding = jobs.filter(({ spec }) => spec.method !== "supervised").map(({ id, name }) => [id, name ?? id]);
    this.fields = new RequestFields(given, { jobs: rewarding, datasets: datasets.map((dataset) => [dataset.id, datasetText(dataset)]) });
    this.taken = h("div.stack", { "aria-live": "polite" });
    this.trouble = h("div");
    this.submit = h("button.primary", { type: "submit", disabled: true }, "Start the rounds");
    this.element = this.#build();
    this.#preview();
  }

  #build() {
    const [what, how, settings] = [...this.job.element.children];
    const { rounds, judge, answers, pairs, comparison } = this.fields.cards;
    const hint = "Each step is an ordinary generation, judgement, dataset or job. You can pause or cancel them at any time.";
    const texts = this.job.remarks;
    const remarks = texts.length ? notice("warning", texts.map((text) => h("p", null, text))) : null;
    const actions = h("div.actions", null, this.submit, h("span.hint", null, hint));
    const changed = () => this.#changed();
    return h(
      "form.columns",
      { onsubmit: (event) => this.#send(event), oninput: changed, onchange: changed, novalidate: true },
      h("div.stack", null, remarks, what, rounds, judge, answers, pairs, how, settings, comparison, this.trouble, actions),
      h("div.stack", null, this.taken),
    );
  }

  #changed() {
    this.fields.update();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#preview(), PREVIEW_MS);
  }

  async #preview() {
    this.#asked.abort();
    this.#asked = new AbortController();
    try {
      const request = this.fields.request(this.job.request());
      history.replaceState({ draft: request }, "");
      if (!request.job.dataset_id) {
        this.submit.disabled = true;
        this.#mark([]);
        fill(this.taken, card("What the rounds will do", h("p.muted", null, "Choose a dataset to see it.")));
        return;
      }
      const preview = await post("/rounds/preview", request, { signal: AbortSignal.any([this.#asked.signal, this.signal]) });
      this.#mark([]);
      fill(this.taken, previewCard(preview, request));
      this.submit.disabled = false;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.submit.disabled = true;
      const left = this.#mark(error.errors ?? []);
      const isPlaced = error.errors?.length && !left.length;
      fill(this.taken, isPlaced ? card("What the rounds will do", h("p.error-text", null, "Fix the highlighted fields first.")) : errorBox(error));
    }
  }

  /** Marks the fields at fault; returns the faults that no field shows. */
  #mark(errors) {
    const isOfJob = ({ pointer }) => pointer?.startsWith(`${JOB}/`);
    const ofJob = errors.filter(isOfJob).map((error) => ({ ...error, pointer: error.pointer.slice(JOB.length) }));
    return [...this.job.showFaults(ofJob), ...markFaults(this.fields.controls(), errors.filter((error) => !isOfJob(error)))];
  }

  #send(event) {
    event.preventDefault();
    act(this.submit, async () => {
      try {
        const made = await post("/rounds", this.fields.request(this.job.request()), { creates: true });
        toast("Started.");
        location.hash = `#${path("rounds", made.id)}`;
      } catch (error) {
        this.#mark(error.errors ?? []);
        fill(this.trouble, errorBox(error));
      }
    });
  }
}
