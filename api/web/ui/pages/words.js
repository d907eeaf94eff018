// All words with their meanings, for whoever has no tooltips.

import { h } from "../dom.js";
import { card, facts } from "../parts.js";
import { WORDS } from "../words.js";

export function open(main) {
  const sorted = Object.entries(WORDS).sort(([one], [other]) => one.localeCompare(other, "en", { sensitivity: "base" }));
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "Words")), card(null, facts(sorted)));
}
