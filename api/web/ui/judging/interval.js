// A share with its interval, drawn on a line from 0 to 1 with a mark in the middle.

import { h } from "../dom.js";
import { percent } from "../format.js";
import { shareText } from "./words.js";

const NAMESPACE = "http://www.w3.org/2000/svg";

/** The share as a picture; its text is beside it, or in its label. */
export function intervalBar(share) {
  const kind = share.low > 0.5 ? "good" : share.high < 0.5 ? "bad" : "even";
  const svg = document.createElementNS(NAMESPACE, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 200 16", class: `interval is-${kind}`, role: "img", "aria-label": shareText(share) }))
    svg.setAttribute(name, value);
  svg.append(
    box("track", 0, 7, 200, 2),
    box("half", 99.5, 1, 1, 14),
    box("range", 200 * share.low, 5, Math.max(2, 200 * (share.high - share.low)), 6),
    box("mark", Math.min(197, Math.max(0, 200 * share.value - 1.5)), 2, 3, 12),
  );
  return svg;
}

/** Value, picture and interval below each other, for a cell of a table. */
export function shareCell(share) {
  if (!share) return h("span.muted.none", null, "–");
  return [h("strong", null, percent(share.value)), intervalBar(share), h("div.hint", null, `${percent(share.low, 0)} to ${percent(share.high, 0)}`)];
}

function box(kind, x, y, width, height) {
  const element = document.createElementNS(NAMESPACE, "rect");
  for (const [name, value] of Object.entries({ class: kind, x, y, width, height, rx: 1 })) element.setAttribute(name, value);
  return element;
}
