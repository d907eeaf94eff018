// What a variant and its beta mean, in words and numbers.

import { h } from "../dom.js";
import { metric } from "../format.js";
import { card, facts } from "../parts.js";

const LOG_ODDS_OF_NINE = Math.log(9);
const SIGMOID_OF_SUM = "−log σ(β·(ρ_w − ρ_l";
const SIGMOID_OF_MEAN = "−log σ(β·(ρ̄_w − ρ̄_l";

/** The chosen variant: when to take it, its formula, and what this beta means for one pair. */
export function variantCard(variant, beta, legend) {
  return card(
    variant.title,
    h("p", null, variant.choose_when),
    h("code.formula", { tabindex: "0", role: "group", "aria-label": `Loss of one pair: ${variant.formula}` }, variant.formula),
    h("div", null, h("h3", null, "What beta does"), h("p.hint", null, variant.beta_means), betaMeaning(variant, Number(beta))),
    facts([
      ["Reward shown", variant.reward],
      ["Reference", variant.needs_reference ? "needed: the model before this stage, frozen" : "not needed"],
      ["Default beta", String(variant.default_beta)],
      ["Paper", paperLink(variant)],
    ]),
    h("details", null, h("summary", null, "Notation"), h("p.hint", null, legend)),
  );
}

function betaMeaning({ formula }, beta) {
  if (!(beta > 0)) return null;
  const nats = metric(LOG_ODDS_OF_NINE / beta);
  const isPerToken = formula.startsWith(SIGMOID_OF_MEAN);
  if (!isPerToken && !formula.startsWith(SIGMOID_OF_SUM)) return null;
  const margin = isPerToken ? "margin per token" : "log-ratio margin";
  return h(
    "p.hint",
    null,
    `At beta ${beta}, a pair stops contributing much (gradient weight 0.1) once its ${margin} reaches ${nats} nats.`,
  );
}

function paperLink({ paper, year }) {
  const address = paper.startsWith("arXiv:") ? `https://arxiv.org/abs/${paper.slice(6)}` : `https://${paper}`;
  return h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, `${paper} (${year})`);
}
