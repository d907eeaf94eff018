// What a variant and its beta mean, in words and numbers.

import { h } from "./dom.js";
import { metric } from "./format.js";
import { card, facts } from "./parts.js";

const LOG_ODDS_OF_NINE = Math.log(9);
const SIGMOID_OF_SUM = "−log σ(β·(ρ_w − ρ_l";
const SIGMOID_OF_MEAN = "−log σ(β·(ρ̄_w − ρ̄_l";

export const BETA_TEXT = [
  "Beta is how strongly the policy is held to the reference. The implicit reward is beta times the log-ratio of policy to reference, so a large beta reaches the same reward with a small change of the policy.",
  "Small (0.01–0.05): the policy may move far, learns more from every pair, and may forget or ramble. Large (0.3–1): it stays close and changes less. Most published recipes use 0.1.",
];

/** The chosen variant: when to take it, its formula, and what this beta means for one pair. */
export function variantCard(variant, beta, legend) {
  return card(
    variant.title,
    h("p", null, variant.choose_when),
    h("code.formula", { tabindex: "0", "aria-label": "Loss of one pair" }, variant.formula),
    betaMeaning(variant, Number(beta)),
    facts([
      ["Reward shown", variant.reward],
      ["Reference", variant.needs_reference ? "needed" : "not needed"],
      ["Default beta", String(variant.default_beta)],
      ["Paper", paperLink(variant)],
    ]),
    h("details", null, h("summary", null, "Notation"), h("p.hint", null, legend)),
  );
}

function betaMeaning({ formula }, beta) {
  if (!(beta > 0)) return null;
  const nats = metric(LOG_ODDS_OF_NINE / beta);
  if (formula.startsWith(SIGMOID_OF_SUM))
    return h(
      "p.hint",
      null,
      `At beta ${beta}, a pair stops contributing much (gradient weight 0.1) once its log-ratio margin reaches ${nats} nats.`,
    );
  if (formula.startsWith(SIGMOID_OF_MEAN))
    return h(
      "p.hint",
      null,
      `At beta ${beta}, a pair stops contributing much (gradient weight 0.1) once its margin per token reaches ${nats} nats.`,
    );
  return null;
}

function paperLink({ paper, year }) {
  const address = paper.startsWith("arXiv:") ? `https://arxiv.org/abs/${paper.slice(6)}` : `https://${paper}`;
  return h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, `${paper} (${year})`);
}
