// One job, live: where it stands, its curves, what it says, what comes out.

import { get, path, ROOT } from "../api.js";
import { Curves } from "../charts/curves.js";
import { fill, h, Region } from "../dom.js";
import { comparisonCard } from "../form/estimate.js";
import { between, count, date, duration, metric, percent, signed } from "../format.js";
import { JobCharts } from "../charts/job_charts.js";
import { jobActions } from "../job/actions.js";
import { EventList, SamplesCard, settingsCard, stageList } from "../job/parts.js";
import { aboutView } from "../job/about.js";
import { FilesCard } from "../job/files.js";
import { ResultsCard } from "../job/results.js";
import { jobTabs } from "../job/tabs.js";
import { WinRatesCard } from "../judging/win_rates_card.js";
import { follow } from "../live.js";
import { card, copyable, FINAL, jobBadge, loading, notice } from "../parts.js";
import { term } from "../words.js";

const MAX_SHOWN_POINTS = 1000;
const MAX_HELD_POINTS = 12000;
const DRAW_MS = 120;

export async function open(main, context) {
  const [jobId] = context.parameters;
  const { signal } = context;
  main.append(loading("job"));
  const job = await get(path("jobs", jobId), { signal });
  fill(main);
  const page = new JobPage(job, context);
  main.append(page.element);
  await page.start();
}

class JobPage {
  constructor(job, { signal, setTitle, fail }) {
    this.job = job;
    this.signal = signal;
    this.setTitle = setTitle;
    this.fail = fail;
    this.curves = new Curves();
    this.position = { metricSeq: 0, eventSeq: 0 };
    this.charts = new JobCharts(job.spec.variant, signal);
    this.events = new EventList();
    this.samples = new SamplesCard(job.id, signal);
    this.files = new FilesCard(job.id, signal);
    this.results = new ResultsCard(job.id, signal);
    this.winRates = new WinRatesCard(job, signal, this.charts.settings);
    this.#build();
  }

  #build() {
    this.title = new Region("div", null, titleView);
    this.about = new Region("div", null, () => aboutView(this.job, (job) => this.take(job)));
    this.actions = new Region("div", { class: "actions" }, () => jobActions(this.job, (job) => this.take(job)));
    this.status = new Region("section", { class: "card", "aria-label": "Progress" }, progressView);
    this.trouble = new Region("div", null, ({ id, error, isRounded }) => {
      if (error) return notice("error", h("strong", null, error.title), h("p", null, error.detail));
      return isRounded ? notice("warning", h("strong", null, "Merged in bf16"), h("p", null, mergedText(id))) : [];
    });
    this.settings = new Region("div", null, settingsCard);
    this.estimate = new Region("div", null, comparisonCard);
    this.tiles = new Region("div", { class: "tiles" }, tilesView);
    this.noCurves = new Region("div", { class: "state empty" }, (isOver) => [
      h("h2", null, isOver ? "No curves" : "No curves yet"),
      h(
        "p",
        null,
        isOver
          ? "The job ended before its first step of training."
          : "The first points appear here as soon as training begins, without a reload.",
      ),
    ]);
    this.curvesHolder = h("div.stack", { hidden: true }, this.tiles.element, this.charts.element);
    this.element = h(
      "div.stack",
      null,
      h("div.title-row", null, h("div", null, this.title.element, this.about.element), this.actions.element),
      jobTabs(this.job.id, ""),
      this.trouble.element,
      this.status.element,
      this.events.findings,
      h(
        "div.columns",
        null,
        h("div.stack", null, this.results.element, this.noCurves.element, this.curvesHolder, this.winRates.element, this.samples.element, this.files.element),
        h("div.stack", null, card("Events", this.events.element), this.estimate.element, this.settings.element, linksCard(this.job)),
      ),
    );
    this.take(this.job);
  }

  /** The job as it is now. */
  take(job) {
    this.job = job;
    this.setTitle(job.name ?? job.id);
    this.title.show({
      id: job.id,
      name: job.name,
      status: job.status,
      desired: job.desired,
      created: job.created_at,
      attempt: job.attempt,
      sweep: job.metadata.sweep?.startsWith("sweep_") ? job.metadata.sweep : null,
      rounds: job.metadata.rounds?.startsWith("rounds_") ? job.metadata.rounds : null,
      dataset: job.spec.dataset_id,
      datasetName: this.datasetName,
    });
    this.about.show({ name: job.name, metadata: job.metadata });
    this.actions.show({ status: job.status, desired: job.desired, error: job.error?.code ?? null });
    this.status.show({
      status: job.status,
      stage: job.stage,
      progress: job.progress,
      stages: job.stages,
      place: job.queue_position,
      started: job.started_at,
      finished: job.finished_at,
    });
    this.trouble.show({ id: job.id, error: job.error, isRounded: job.artifact?.merged_in_bf16 });
    this.settings.show({ spec: job.spec, requested: job.requested });
    this.noCurves.show(FINAL.has(job.status));
    this.events.hideRepeats(job.error?.detail);
    this.results.show(job).catch(this.fail);
    this.estimate.show({ estimate: job.estimate ?? null, actual: job.actual ?? null });
    this.files.note(job.artifact);
  }

  async start() {
    await this.#loadCurves();
    this.#nameDataset().catch(() => {}); // it may be deleted; the job stays
    this.refreshRecords();
    const on = {
      points: (points) => this.#addPoints(points),
      reset: () => this.curves.clear(),
      event: (event) => this.#addEvent(event),
      status: (job) => this.#onStatus(job),
      end: () => this.#onEnd(),
    };
    follow(this.job.id, this.position, on, this.signal).catch(this.fail);
  }

  async #nameDataset() {
    const { name } = await get(path("datasets", this.job.spec.dataset_id), { signal: this.signal });
    this.datasetName = name;
    this.take(this.job);
  }

  async #loadCurves() {
    const query = { max_points: MAX_SHOWN_POINTS };
    const page = await get(path("jobs", this.job.id, "metrics"), { query, signal: this.signal });
    this.curves.clear();
    this.position.metricSeq = page.last_seq;
    this.#addPoints(page.points);
  }

  #addPoints(points) {
    this.curves.add(points);
    if (this.curves.size > MAX_HELD_POINTS) this.#loadCurves().catch(this.fail);
    this.drawTimer ??= setTimeout(() => {
      this.drawTimer = null;
      if (!this.signal.aborted) this.#draw();
    }, DRAW_MS);
  }

  #draw() {
    const hasPoints = this.curves.size > 0;
    this.noCurves.element.hidden = hasPoints;
    this.curvesHolder.hidden = !hasPoints;
    if (!hasPoints) return;
    this.charts.show(this.curves);
    this.winRates.place(this.curves.bands());
    this.tiles.show({
      train: this.curves.newest,
      validation: this.curves.last(this.curves.newest?.stage, "validation"),
      results: this.job.results ?? null,
      method: this.job.spec.method,
    });
  }

  #addEvent(event) {
    this.events.add(event);
    this.events.hideRepeats(this.job.error?.detail);
    this.refreshRecords();
  }

  #onStatus(job) {
    if (job) this.take({ ...this.job, ...job });
    else this.#reload();
  }

  async #onEnd() {
    await this.#reload();
    this.#draw();
    this.refreshRecords();
  }

  async #reload() {
    try {
      this.take(await get(path("jobs", this.job.id), { signal: this.signal }));
    } catch (error) {
      this.fail(error);
    }
  }

  /** A policy answers once it is published, or a checkpoint has one; a reward model answers nothing. */
  #refreshWinRates() {
    if (this.job.spec.method === "reward") return null;
    return this.winRates.refresh(Boolean(this.job.artifact) || this.files.hasPolicies);
  }

  /** Samples and files change with events; soon is early enough, and once for many events. */
  refreshRecords() {
    this.recordsTimer ??= setTimeout(() => {
      this.recordsTimer = null;
      if (this.signal.aborted) return;
      Promise.all([this.samples.refresh(), this.files.refresh().then(() => this.#refreshWinRates())]).catch(this.fail);
    }, 300);
  }
}

function mergedText(id) {
  return (
    "An earlier version merged this policy's adapter in bf16, which lost a part of its update. " +
    `preftune jobs republish ${id} merges it again in float32, in the artifact's place.`
  );
}

function titleView(job) {
  return [
    h("h1", { tabindex: "-1", "data-focus": "title" }, job.name ?? job.id, " ", jobBadge(job)),
    h(
      "p.hint",
      null,
      copyable(job.id),
      ` · created ${date(job.created)}`,
      job.attempt > 1 ? [" · ", term("attempt"), ` ${job.attempt}`] : null,
      " · on ",
      h("a", { href: `#${path("datasets", job.dataset)}` }, job.datasetName ?? "its dataset"),
      job.sweep ? [" · ", h("a", { href: `#${path("sweeps", job.sweep)}` }, "part of a sweep")] : null,
      job.rounds ? [" · ", h("a", { href: `#${path("rounds", job.rounds)}` }, "part of rounds")] : null,
    ),
  ];
}

function progressView({ status, stage, progress, stages, place, started, finished }) {
  let note = "";
  if (status === "queued")
    note =
      place === null ? "Waiting for a worker." : `Place ${place} in the queue.`;
  else if (FINAL.has(status)) note = started ? `Took ${between(started, finished)}.` : "It never started.";
  else if (status === "paused") note = "Paused at a checkpoint; the device is free. Resume to continue from there.";
  else if (progress.eta_seconds !== null) note = `About ${duration(progress.eta_seconds)} left.`;
  else note = "Estimating the time left …";
  const speed = progress.tokens_per_second === null ? "" : `${count(Math.round(progress.tokens_per_second))} tokens/s`;
  return [
    h(
      "div.title-row",
      { class: "flat" },
      h("strong", { "data-test": "fraction" }, percent(progress.fraction, 0)),
      h("span.hint", null, [note, speed].filter(Boolean).join(" ")),
    ),
    stageList(stages, stage, progress, status),
  ];
}

/** Held-out figures first: a single batch says little of a policy. */
function tilesView({ train, validation, results, method }) {
  const value = (point, name) => point?.values[name] ?? null;
  const of = (name, format) => {
    const figure = results?.held_out?.[RESULT_OF[name]];
    if (figure) return [format(figure.value), heldOut(figure, results.held_out.num_rows, format)];
    const mean = results?.training?.[RESULT_OF[name]] ?? null;
    if (mean !== null) return [format(mean), `training, mean over epoch ${results.training.epoch}`];
    const batch = `batch of step ${train.step}: ${format(value(train, name))}`;
    if (value(validation, name) === null) return [format(value(train, name)), "this batch"];
    return [format(value(validation, name)), `held-out, step ${validation.step}; ${batch}`];
  };
  const stage = { dpo: "DPO", reward: "Reward" }[train?.stage] ?? "SFT";
  const compares = stage !== "SFT";
  const isLast = compares || method === "supervised";
  const tiles = [
    [`${stage} step`, [train ? String(train.step) : "–", train ? `epoch ${train.epoch.toFixed(2)}` : null]],
    [`${stage} loss`, isLast ? of("loss", metric) : [metric(value(train, "loss")), null]],
  ];
  if (train?.stage === "sft" && isLast) {
    tiles.push(["Token accuracy", of("mean_token_accuracy", (share) => percent(share))]);
    const perplexity = results?.held_out?.perplexity;
    if (perplexity) tiles.push(["Perplexity", [metric(perplexity.value), heldOut(perplexity, results.held_out.num_rows, metric)]]);
  }
  if (compares) {
    tiles.push(
      ["Margin", of("rewards/margins", signed)],
      ["Accuracy", of("rewards/accuracies", (share) => percent(share))],
    );
    const calibration = results?.held_out?.calibration;
    if (calibration) tiles.push(["Calibration", [percent(calibration.error), `error, held-out, ${results.held_out.num_rows} rows`]]);
    if (!results) tiles.push(["Chosen reward", of("rewards/chosen", signed)], ["Rejected reward", of("rewards/rejected", signed)]);
  }
  return tiles.map(([name, [now, more]]) =>
    h("div.tile", null, h("span.hint", null, TILE_WORDS[name] ? term(TILE_WORDS[name], name) : name), h("span.value", null, now), h("span.hint", null, more ?? " ")),
  );
}

const TILE_WORDS = {
  Margin: "margin",
  Accuracy: "accuracy",
  Perplexity: "perplexity",
  Calibration: "calibration",
};
const RESULT_OF = {
  loss: "loss",
  "rewards/margins": "reward_margin",
  "rewards/accuracies": "reward_accuracy",
  mean_token_accuracy: "token_accuracy",
};

function heldOut({ low, high }, rows, format) {
  const interval = low === null ? "" : `, ${format(low)} to ${format(high)}`;
  return `held-out, ${rows} rows${interval}`;
}

function linksCard(job) {
  const metrics = path("jobs", job.id, "metrics");
  return card(
    "Export and command line",
    h("p.hint", null, "The same numbers for programs and for the terminal."),
    h(
      "div.actions",
      null,
      h("a.button", { href: `${ROOT}${metrics}?format=csv`, download: true }, "Curves as CSV"),
      h("a.button", { href: `#/compare?jobs=${job.id}` }, "Compare …"),
      h("a.button", { href: `#${path("jobs", job.id)}/pairs` }, "Pairs and flags"),
    ),
    h("code.text", null, `preftune watch ${job.id}`),
  );
}
