// One judgement, live: its win rate, how far its judge can be trusted, and every pair.

import { get, path } from "../api.js";
import { fill, h, Region } from "../dom.js";
import { pageTitle, progressShare, steering } from "../entity.js";
import { count, plural, setting } from "../format.js";
import { agreementCard } from "../judging/agreement_card.js";
import { ModelLabels } from "../judging/models.js";
import { PairsCard } from "../judging/pairs_card.js";
import { faultsCard, positionCard, ratesCard, verdictNotice } from "../judging/results_cards.js";
import { HELD, judgeName } from "../judging/words.js";
import { poll } from "../live.js";
import { card, facts, FINAL, loading, notice } from "../parts.js";

const POLL_MS = 2000;

export async function open(main, { parameters, signal, setTitle, fail }) {
  main.append(loading("judgement"));
  const address = path("judgements", parameters[0]);
  const judgement = await get(address, { signal });
  const labels = await new ModelLabels(signal).learn([...judgement.models, judgement.requested.judge.job_id ?? ""]);
  const page = new JudgementPage(judgement, { address, labels, signal, setTitle });
  fill(main, page.element);
  await page.showPairs();
  if (FINAL.has(judgement.status)) return;
  const refresh = async () => {
    page.take(await get(address, { signal }));
    const isOver = FINAL.has(page.judgement.status);
    if (isOver) await page.showPairs();
    return !isOver;
  };
  poll(signal, POLL_MS, refresh).catch(fail);
}

class JudgementPage {
  constructor(judgement, { address, labels, signal, setTitle }) {
    this.steering = steering("judgement", address, "judgements", (now) => this.take(now));
    this.labels = labels;
    this.signal = signal;
    this.names = judgement.models.map((name) => labels.of(name));
    this.pairs = new PairsCard(address, this.names, signal);
    this.title = new Region("div", null, pageTitle);
    this.actions = new Region("div", { class: "actions" }, () => this.#actions());
    this.progress = new Region("div", null, progressView);
    this.results = new Region("div", { class: "stack" }, (now) => [verdictNotice(now, this.names), ratesCard(now, this.names)]);
    this.side = new Region("div", { class: "stack" }, (now) => [this.#about(now), positionCard(now.position), faultsCard(now)]);
    this.agreement = h("div");
    this.element = h(
      "div.stack",
      null,
      h("div.title-row", null, this.title.element, this.actions.element),
      this.progress.element,
      h("div.columns", null, h("div.stack", null, this.results.element, this.agreement, this.pairs.element), this.side.element),
    );
    setTitle(judgement.name ?? judgement.id);
    this.take(judgement);
  }

  /** Show the judgement as it is now. */
  take(judgement) {
    this.judgement = judgement;
    const { id, name, status, created_at: created, dataset_id: dataset, error } = judgement;
    this.title.show({ id, name, status, created });
    this.actions.show({ status, dataset });
    this.progress.show({ status, isHeld: judgement.is_held, judged: judgement.num_judged, number: judgement.num_pairs, error });
    this.results.show(judgement);
    this.side.show(judgement);
  }

  /** The pairs as they are now, and once there are verdicts what other judges say of them. */
  async showPairs() {
    const [, agreement] = await Promise.all([
      this.pairs.ask(),
      this.judgement.num_judged ? agreementCard(this.judgement, this.signal) : null,
    ]);
    fill(this.agreement, agreement);
  }

  #about({ source, requested, num_pairs: pairs, num_judged: judged, num_failed: failed, num_requests: requests, num_cached: cached, models }) {
    const { judge, num_pairs: most, seed } = requested;
    const isModel = judge.kind === "model";
    return card(
      "What was judged",
      facts(
        [
          ["Judge", this.#judge(judge)],
          isModel ? ["Criteria", judge.criteria ?? "the question's own"] : null,
          isModel ? ["Question", judge.template ?? "the newest version"] : null,
          ["Models", models[0] === models[1] ? [this.labels.link(models[0]), ", against itself"] : [this.labels.link(models[0]), " against ", this.labels.link(models[1])]],
          ["Pairs of", h("a", { href: `#${path("datasets", source)}` }, source)],
          ["Pairs", `${count(pairs)}${most ? `, at most ${count(most)} drawn with seed ${setting(seed)}` : ""}`],
          ["Judged", failed ? `${count(judged)}, ${count(failed)} of them without a verdict` : count(judged)],
          isModel ? ["Requests", `${count(requests)}, and ${plural(cached, "answer")} kept from before`] : null,
        ].filter(Boolean),
      ),
    );
  }

  #judge(judge) {
    if (judge.kind === "reward") return ["rewards of ", this.labels.link(judge.job_id)];
    if (judge.kind === "arena") return ["votes in ", h("a", { href: `#${path("arena", judge.arena_id)}` }, judge.arena_id)];
    if (judge.kind === "json_schema") return h("details", null, h("summary", null, "JSON schema"), h("code", null, JSON.stringify(judge.json_schema)));
    return judgeName(judge);
  }

  #actions() {
    const { status, dataset_id: dataset, id } = this.judgement;
    return [
      dataset ? h("a.button.primary", { href: `#/new?dataset_id=${dataset}` }, "New job on the verdicts") : null,
      dataset ? h("a.button", { href: `#${path("datasets", dataset)}` }, "Dataset of pairs") : null,
      h("a.button", { href: `#/judgements/new?from=${id}` }, "New judgement like this"),
      FINAL.has(status)
        ? this.steering.erase("The judgement is deleted with its pairs and verdicts; its dataset stays.")
        : this.steering.cancel("Verdicts that are there stay, but give no win rate and no dataset."),
    ];
  }
}

function progressView({ status, isHeld, judged, number, error }) {
  if (error) return notice("error", h("strong", null, "The judgement failed"), h("p", null, error));
  if (status === "cancelled") return notice("info", `Cancelled after ${count(judged)} of ${plural(number, "pair")}; their verdicts stay.`);
  if (FINAL.has(status)) return null;
  return card(
    null,
    progressShare("Pairs", judged, number),
    h("p.hint", null, isHeld ? HELD : status === "queued" ? "Waits for a worker." : `${count(judged)} of ${plural(number, "pair")}`),
  );
}
