// Pairs that one model gets right and another does not, with their texts.

import { get, path } from "../api.js";
import { fill, h } from "../dom.js";
import { signed } from "../format.js";
import { act } from "../parts.js";

const SHOWN = 10;

/** item: a difference of the comparison; the texts come from the dataset, ten at a time. */
export function changedPairs({ item, against, dataset, labels, signal }) {
  const list = h("div.stack");
  let next = 0;
  const more = h("button", { type: "button" }, "Show more");
  const show = async () => {
    const pairs = item.changed.slice(next, next + SHOWN);
    next += pairs.length;
    const made = await Promise.all(pairs.map((pair) => pairView(pair, { item, against, dataset, labels, signal })));
    list.append(...made);
    more.hidden = next >= item.changed.length;
  };
  more.addEventListener("click", () => act(more, show));
  act(more, show);
  const left = item.gained + item.lost - item.changed.length;
  return h(
    "section",
    { "aria-label": "Pairs that changed sides" },
    h("h3", null, `Pairs that changed sides: ${labels.get(item.job_id)}`),
    list,
    more,
    left > 0 ? h("p.hint", null, `${left} further ones are not listed.`) : null,
  );
}

async function pairView(pair, { item, against, dataset, labels, signal }) {
  const holder = h("article.pair");
  const address = path("datasets", dataset, "rows");
  const row = await get(address, { query: { line: pair.line, limit: 1 }, signal })
    .then(({ data }) => data.find(({ line }) => line === pair.line) ?? null)
    .catch(() => null);
  const side = pair.margin > 0 ? "this job is right" : "the other one is right";
  return fill(
    holder,
    h("p", null, h("strong", null, `Line ${pair.line}`), ` · ${side} · margin ${signed(pair.margin)} (${labels.get(item.job_id)}), ${signed(pair.margin_of_other)} (${labels.get(against)})`),
    row
      ? h("dl", null, ["prompt", "chosen", "rejected"].map((part) => [h("dt", null, part), h("dd", null, h("pre", null, plain(row[part])))]))
      : h("p.muted", null, "Its text is not there any more."),
  );
}

function plain(value) {
  return Array.isArray(value) ? value.map(({ role, content }) => `${role}: ${content}`).join("\n") : String(value ?? "");
}
