// All rounds, live.

import { path } from "../api.js";
import { h, Region } from "../dom.js";
import { ago, plural } from "../format.js";
import { shareCell } from "../judging/interval.js";
import { ModelLabels } from "../judging/models.js";
import { liveList } from "../live_list.js";
import { badge, empty } from "../parts.js";
import { badgeKind, STAGES } from "../rounds/words.js";
import { term } from "../words.js";

const NEW = "#/rounds/new";
const HEADS = ["Rounds", "Status", "Round", [term("win rate", "Win rate"), " against the first"], "Created"];

export async function open(main, { signal, fail }) {
  const content = h("div");
  const labels = new ModelLabels(signal);
  const add = h("div.actions", null, h("a.button.primary", { href: NEW }, "New rounds"));
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "Rounds"), add), content);
  await liveList(content, {
    address: "/rounds",
    heads: HEADS,
    makeRow: (rounds) => makeRow(rounds, labels),
    nothing,
    what: "rounds",
    prepare: (items) => labels.learn(items.flatMap(({ best_policy: best, first_policy: first }) => [best ?? "", first ?? ""])),
    signal,
    fail,
  });
}

function nothing() {
  return empty(
    "No rounds yet",
    "In each round the policy answers, a judge finds the better answers, and the policy is trained on those pairs.",
    h("a.button.primary", { href: NEW }, "Start the first ones"),
  );
}

function makeRow(rounds, labels) {
  const status = new Region("td", { "data-label": "Status" }, (word) => badge(word, badgeKind(word)));
  const round = new Region("td", { "data-label": "Round" }, ({ done, most, stage }) => [`${done} of ${plural(most, "round")} done`, stage ? h("div.hint", null, STAGES[stage] ?? stage) : null]);
  const rate = new Region("td", { "data-label": "Win rate" }, ({ share, policy }) => [shareCell(share), policy ? h("div.hint", null, policy) : null]);
  const created = new Region("td", { class: "muted", "data-label": "Created" }, (text) => text);
  const name = h("td.name", null, h("a", { href: `#${path("rounds", rounds.id)}` }, rounds.name ?? rounds.id), rounds.name ? h("div.muted.mono", null, rounds.id) : null);
  const element = h("tr", null, name, status.element, round.element, rate.element, created.element);
  const update = (now) => {
    const best = now.rounds.find(({ policy }) => policy && policy === now.best_policy);
    status.show(now.status);
    round.show({
      done: now.rounds.filter(({ status: state }) => ["succeeded", "skipped"].includes(state)).length,
      most: now.num_rounds,
      stage: now.steps.find(({ status: state }) => state === "running")?.stage ?? null,
    });
    rate.show({ share: best?.win_rate_first ?? null, policy: best ? labels.of(best.policy) : null });
    created.show(ago(now.created_at));
  };
  return { element, update };
}
