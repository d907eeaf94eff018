// Two versions of a dataset: how many rows they do not have in common, and which.

import { get, listAll, path } from "../api.js";
import { rowView } from "../data/row_view.js";
import { fill, h } from "../dom.js";
import { count } from "../format.js";
import { badge, card, empty, errorBox, facts, loading, moreButton } from "../parts.js";

const PAGE = 20;
const COLOURS = { added: "succeeded", removed: "failed", swapped: "running" };

export async function open(main, { query, signal, setTitle }) {
  const [newer, older] = [query.get("new") ?? "", query.get("old") ?? ""];
  main.append(h("div.title-row", null, h("h1", { tabindex: "-1" }, "What differs")), loading("versions"));
  if (!newer || !older) {
    fill(main, h("h1", { tabindex: "-1" }, "What differs"), empty("No versions to compare", "Choose “Compare” beside a version on the page of a dataset.", h("a.button", { href: "#/datasets" }, "All datasets")));
    return;
  }
  const dataset = await get(path("datasets", newer), { signal });
  setTitle(`${dataset.name}: what differs`);
  const roots = [...new Set([newer, older].map((name) => name.split("@")[0]))];
  const lists = await Promise.all(roots.map((root) => listAll(path("datasets", root, "versions"), { signal, pages: 2 })));
  const names = lists.flat().filter(({ status }) => status === "ready").map(({ id, version }) => `${id.split("@")[0]}@${version}`);
  const choose = (id, label, value) => {
    const known = [...new Set([value, ...names])];
    const control = h("select", { id }, known.map((name) => h("option", { value: name, selected: name === value }, name)));
    control.addEventListener("change", () => {
      const [now, before] = [document.getElementById("d-new").value, document.getElementById("d-old").value];
      location.hash = `#/diff?${new URLSearchParams({ new: now, old: before })}`;
    });
    return h("div.field", null, h("label", { for: id }, label), control);
  };
  const body = h("div.stack", null, loading("rows that differ"));
  fill(
    main,
    h("div.title-row", null, h("h1", { tabindex: "-1" }, "What differs"), h("div.actions", null, h("a.button", { href: `#${path("datasets", newer)}` }, dataset.name))),
    h("div.stack", null, card(null, h("div.tools", null, choose("d-old", "Older", older), choose("d-new", "Newer", newer))), body),
  );
  await show(body, newer, older, signal);
}

async function show(body, newer, older, signal) {
  const counts = h("div");
  const rows = h("div.stack");
  const more = moreButton(
    async (cursor) => {
      const page = await get(path("datasets", newer, "diff"), { query: { against: older, limit: PAGE, cursor }, signal });
      fill(counts, countsView(page));
      return page;
    },
    (changes) => rows.append(...changes.map(changeView)),
    "Show more rows",
  );
  try {
    await more.start();
    if (!rows.childElementCount) rows.append(empty("No row differs", "Both versions have the same rows; lines may be others."));
    fill(body, counts, rows, more.element);
  } catch (error) {
    if (error.name !== "AbortError") fill(body, errorBox(error));
  }
}

function countsView({ num_added: added, num_removed: removed, num_swapped: swapped, num_equal: equal }) {
  return card(
    "Rows",
    facts([
      ["Added", count(added)],
      ["Removed", count(removed)],
      ["Swapped", count(swapped)],
      ["In both", count(equal)],
    ]),
  );
}

function changeView({ change, line, old_line: oldLine, row }) {
  const lines = { added: `line ${line}`, removed: `was line ${oldLine}`, swapped: `line ${line}, was ${oldLine}` };
  return rowView({ ...row, line: line ?? oldLine }, badge(change, COLOURS[change]), h("span.hint", null, lines[change]));
}
