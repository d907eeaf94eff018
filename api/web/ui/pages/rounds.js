// One run of rounds, live: its curve, its rounds, and every step with what does it.

import { get, path, post } from "../api.js";
import { fill, h, Region } from "../dom.js";
import { pageTitle, steering } from "../entity.js";
import { field, number, postingForm, read } from "../form/plain.js";
import { between, count, metric, plural, setting } from "../format.js";
import { shareCell } from "../judging/interval.js";
import { ModelLabels } from "../judging/models.js";
import { judgeName } from "../judging/words.js";
import { poll } from "../live.js";
import { badge, card, facts, loading, notice, table, tableRow, toast } from "../parts.js";
import { RoundCurves } from "../rounds/curves.js";
import { timeline } from "../rounds/timeline.js";
import { badgeKind, stopText } from "../rounds/words.js";
import { term } from "../words.js";

const POLL_MS = 3000;
const MAX_ROUNDS = 50;

export async function open(main, { parameters, signal, setTitle, fail }) {
  main.append(loading("rounds"));
  const address = path("rounds", parameters[0]);
  const rounds = await get(address, { signal });
  const page = new RoundsPage(rounds, { address, signal, setTitle });
  await page.take(rounds);
  fill(main, page.element);
  page.draw();
  poll(signal, POLL_MS, async () => page.take(await get(address, { signal }))).catch(fail);
}

class RoundsPage {
  constructor(rounds, { address, signal, setTitle }) {
    this.address = address;
    this.steering = steering("run of rounds", address, "rounds", (now) => this.take(now));
    this.labels = new ModelLabels(signal);
    this.curves = new RoundCurves(signal);
    this.title = new Region("div", null, titleView);
    this.actions = new Region("div", { class: "actions" }, () => this.#actions());
    this.outcome = new Region("div", null, (now) => this.#outcome(now));
    this.table = new Region("div", null, (found) => this.#table(found));
    this.steps = new Region("div", { class: "stack" }, () => this.#timeline());
    this.extension = h("div");
    this.element = h(
      "div.stack",
      null,
      h("div.title-row", null, this.title.element, this.actions.element),
      this.outcome.element,
      h(
        "div.columns",
        null,
        h("div.stack", null, this.curves.element, card("Rounds", this.table.element), card("Timeline", this.steps.element)),
        h("div.stack", null, settingsCard(rounds), this.extension),
      ),
    );
    setTitle(rounds.name ?? rounds.id);
  }

  /** Show the rounds as they are now. */
  async take(rounds) {
    this.rounds = rounds;
    await this.labels.learn(rounds.rounds.flatMap(({ policy, start_policy: start }) => [policy ?? "", start ?? ""]));
    const { id, name, status, created_at: created, finished_at: finished, num_rounds: most } = rounds;
    const done = rounds.rounds.filter(({ status: state }) => state === "succeeded").length;
    this.title.show({ id, name, status, created, done, most });
    this.actions.show({ status, isOver: finished !== null, best: rounds.best_policy });
    this.outcome.show({ status, error: rounds.error, reason: rounds.stop_reason, best: rounds.best_policy, first: rounds.first_policy, done });
    this.table.show(rounds.rounds);
    this.steps.show(rounds.steps);
    if (status === "cancelled") fill(this.extension);
    else if (!this.extension.firstChild) fill(this.extension, this.#extensionForm());
    if (this.element.isConnected) this.draw();
  }

  /** Curves are drawn once the page has a width. */
  draw() {
    this.curves.show(this.rounds.rounds);
  }

  /** What was open or folded by hand stays so. */
  #timeline() {
    const before = new Map([...this.steps.element.querySelectorAll("details")].map((item) => [item.dataset.round, item.open]));
    const groups = timeline(this.rounds.steps);
    for (const group of groups) if (before.has(group.dataset.round) && before.get(group.dataset.round)) group.open = true;
    return groups;
  }

  #actions() {
    const { status, finished_at: finished, best_policy: best } = this.rounds;
    const { button, cancel, erase } = this.steering;
    return [
      status === "running" ? button("Pause", "pause", "pause") : null,
      status === "paused" ? button("Resume", "play", "resume") : null,
      status === "failed" ? button("Try again", "retry", "resume") : null,
      best?.startsWith("job_") ? h("a.button", { href: `#/play?job=${best}` }, "Try the best policy") : null,
      h("a.button", { href: `#/rounds/new?from=${this.rounds.id}` }, "New rounds like these"),
      ["running", "paused"].includes(status) ? cancel("What is under way is cancelled; what the rounds have made stays.") : null,
      finished !== null ? erase("Its record is deleted; its datasets, judgements and jobs stay.") : null,
    ];
  }

  #outcome({ status, error, reason, best, first, done }) {
    const isBetter = best && best !== first;
    const told = best && done ? h("p", null, isBetter ? ["Best policy: ", this.labels.link(best), ", by its win rate against the first."] : ["No policy wins more than half against ", this.labels.link(first), ", where the rounds began."]) : null;
    if (error) return notice(status === "failed" ? "error" : "warning", h("strong", null, status === "failed" ? "A step has failed" : "Waiting"), h("p", null, error), told);
    if (reason) return notice(isBetter ? "check" : "info", h("strong", null, stopText(reason)), told);
    return told ? notice("info", told) : null;
  }

  #table(rounds) {
    if (!rounds.length) return h("p.muted", null, "No round has begun.");
    const row = ({ number: place, status, policy, num_pairs: pairs, win_rate: rate, win_rate_first: first, drift, started_at: started, finished_at: finished }) =>
      tableRow(
        [`Round ${place}`, h("div", null, badge(status, badgeKind(status))), started ? h("div.hint", null, between(started, finished)) : null],
        policy ? this.labels.link(policy) : "–",
        count(pairs),
        shareCell(rate),
        shareCell(first),
        drift ? [metric(drift.kl), h("div.hint", null, drift.standard_error === null ? "nats" : `± ${metric(drift.standard_error)} nats`)] : "–",
      );
    return table(["", "Policy", "Rows to learn from", "Against the one before", "Against the first", term("drift", "Drift")], rounds.map(row));
  }

  #extensionForm() {
    const most = number("r-most", "", { min: "1", max: String(MAX_ROUNDS), required: true });
    const send = async () => {
      await this.take(await post(`${this.address}/extend`, { num_rounds: read(most) }));
      most.value = "";
      toast("They go on.");
    };
    const fields = field("Rounds at most", most, "Those that are done among them; finished rounds go on.");
    return h("details.card", null, h("summary", null, "Allow more rounds"), postingForm("Allow more rounds", { fields, button: "Extend", controls: () => new Map([["/num_rounds", most]]), send }));
  }
}

function titleView({ done, most, ...rounds }) {
  return pageTitle(rounds, badgeKind(rounds.status), ` · ${count(done)} of ${plural(most, "round")} done`);
}

function settingsCard({ requested }) {
  const { job, judge, generation, pairing, evaluation, reference, file_ratio: ratio, stop_early: stops, seed, initial } = requested;
  const all = (values) => Object.entries(values ?? {}).filter(([, value]) => value !== null);
  const shown = (values) => all(values).map(([name, value]) => h("div", null, `${name.replaceAll("_", " ")}: ${setting(value)}`));
  return card(
    "What was asked",
    facts(
      [
        ["Judge", judgeName(judge)],
        ["Prompts", h("a", { href: `#${path("datasets", job.dataset_id)}` }, job.dataset_id)],
        ["Starts from", initial ? "a first policy trained before" : job.base_model],
        generation ? ["Answers", shown(generation)] : null,
        pairing ? ["Pairs", shown(pairing)] : null,
        evaluation ? ["Compared", shown(evaluation)] : null,
        reference ? ["Reference", reference === "first" ? "the first policy" : "the policy before"] : null,
        ratio ? ["Rows of the file", `${setting(ratio)} for each row`] : null,
        stops !== undefined ? ["Ends early", stops ? "once a round is no better" : "no"] : null,
        seed !== undefined ? ["Seed", setting(seed)] : null,
        ["Job", h("details", null, h("summary", null, "Settings"), shown(Object.fromEntries(Object.entries(job).filter(([name]) => !["dataset_id", "base_model"].includes(name)))))],
      ].filter(Boolean),
    ),
  );
}
