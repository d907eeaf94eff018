// All rounds, live.

import { h } from "../dom.js";
import { plural } from "../format.js";
import { shareCell } from "../judging/interval.js";
import { ModelLabels } from "../judging/models.js";
import { column, liveList } from "../live_list.js";
import { badge, empty } from "../parts.js";
import { badgeKind, STAGES } from "../rounds/words.js";
import { term } from "../words.js";

const NEW = "#/rounds/new";

export async function open(main, { signal, fail }) {
  const content = h("div");
  const labels = new ModelLabels(signal);
  const add = h("div.actions", null, h("a.button.primary", { href: NEW }, "New rounds"));
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "Rounds"), add), content);
  await liveList(content, {
    what: "rounds",
    head: "Rounds",
    columns: [
      column("Status", ({ status }) => status, (status) => badge(status, badgeKind(status))),
      column("Round", roundOf, ({ done, most, stage }) => [`${done} of ${plural(most, "round")} done`, stage ? h("div.hint", null, STAGES[stage] ?? stage) : null]),
      column([term("win rate", "Win rate"), " against the first"], (rounds) => rateOf(rounds, labels), ({ share, policy }) => [shareCell(share), policy ? h("div.hint", null, policy) : null], { label: "Win rate" }),
    ],
    nothing,
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

function roundOf({ rounds, steps, num_rounds: most }) {
  const done = rounds.filter(({ status }) => ["succeeded", "skipped"].includes(status)).length;
  return { done, most, stage: steps.find(({ status }) => status === "running")?.stage ?? null };
}

function rateOf({ rounds, best_policy: best }, labels) {
  const found = rounds.find(({ policy }) => policy && policy === best);
  return { share: found?.win_rate_first ?? null, policy: found ? labels.of(best) : null };
}
