// The versions of a dataset: what there is, what differs, and ways to the next one or to parts of it.

import { get, listAll, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { ago, count, plural } from "../format.js";
import { act, badge, card, errorBox, moreButton, table, tableRow, toast } from "../parts.js";

const PAGE = 10;
const ORIGINS = { change: "a change", merge: "a merge", split: "a split", votes: "votes", feedback: "feedback", generation: "a generation", judgement: "a judgement", round: "a round" };

/** The id without a version. */
export function rootOf(dataset) {
  return dataset.id.split("@")[0];
}

export function originOf(dataset) {
  return ORIGINS[dataset.made_from?.how] ?? dataset.made_from?.how ?? "an upload";
}

/** The address of what the service made it in; null of an upload and of what has no page. */
export function originPage({ made_from: from }) {
  const found = [["generation_id", "generations"], ["judgement_id", "judgements"], ["arena_id", "arena"], ["rounds_id", "rounds"]].find(([name]) => from?.[name]);
  return found ? `#${path(found[1], from[found[0]])}` : null;
}

export function versionsCard(dataset, { signal }) {
  const root = rootOf(dataset);
  const body = h("tbody");
  const trouble = h("div");
  const more = moreButton(
    (cursor) => get(path("datasets", root, "versions"), { query: { limit: PAGE, cursor }, signal }),
    (versions) => body.append(...versions.map((version) => versionRow(version, dataset))),
    "Show older versions",
  );
  more.start().catch((error) => error.name !== "AbortError" && fill(trouble, errorBox(error)));
  return card("Versions", table(["Version", "Rows", "Made by", ""], body), trouble, more.element, appendForm(dataset, signal), splitForm(dataset));
}

function versionRow(version, shown) {
  const name = `${rootOf(version)}@${version.version}`;
  const isShown = version.version === shown.version;
  const link = h("a", { href: `#${path("datasets", name)}`, "aria-current": isShown ? "true" : null }, `Version ${version.version}`);
  const query = new URLSearchParams({ new: `${rootOf(shown)}@${shown.version}`, old: name });
  return tableRow(
    [link, isShown ? [" ", badge("shown", "running")] : null],
    version.status === "ready" ? count(version.num_accepted) : badge(version.status),
    [originOf(version), h("div.hint", null, ago(version.created_at))],
    isShown || version.status !== "ready" ? null : h("a", { href: `#/diff?${query}`, "aria-label": `Compare with version ${version.version}` }, "Compare"),
  );
}

/** Rows of another dataset behind these; the list is asked for when somebody opens it. */
function appendForm(dataset, signal) {
  const source = h("select", { id: "v-source", required: true });
  const unique = h("input", { type: "checkbox" });
  const button = h("button.primary", { type: "submit" }, "Make the next version");
  const form = h(
    "form.form",
    null,
    h("div.field", null, h("label", { for: "v-source" }, "Rows of"), source),
    h("label.check", null, unique, "Of equal rows keep the first"),
    h("div.actions", null, button),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = { base_version: dataset.version, append: [source.value], drop_duplicates: unique.checked };
    act(button, () => makeVersion(dataset, body));
  });
  const details = h("details", null, h("summary", null, "Add rows of another dataset"), form);
  details.addEventListener("toggle", () => details.open && act(button, () => offer(source, dataset, signal)));
  return details;
}

async function offer(source, dataset, signal) {
  const found = await listAll("/datasets", { signal, pages: 2 });
  const fitting = found.filter(({ status, kind }) => status === "ready" && kind === dataset.kind);
  fill(source, fitting.map(({ id, name, num_accepted: number }) => h("option", { value: id }, `${name}, ${plural(number, "row")}`)));
}

/** Post a change; the page of the version that it makes is shown. */
export async function makeVersion(dataset, body) {
  const made = await post(path("datasets", rootOf(dataset), "versions"), body, { creates: true });
  toast(`Version ${made.version} has ${plural(made.num_accepted, "row")}.`);
  location.hash = `#${path("datasets", `${rootOf(made)}@${made.version}`)}`;
}

function splitForm(dataset) {
  const first = h("input", { id: "v-share", type: "number", min: "1", max: "99", value: "90", required: true });
  const seed = h("input", { id: "v-seed", type: "number", min: "0", value: "0", required: true });
  const button = h("button.primary", { type: "submit" }, "Split");
  const made = h("div", { role: "status" });
  const form = h(
    "form.form",
    null,
    h("p.hint", null, "Two new datasets; rows of one prompt go to one of them."),
    h("div.field", null, h("label", { for: "v-share" }, "Per cent in the first"), first),
    h("div.field", null, h("label", { for: "v-seed" }, "Seed"), seed),
    h("div.actions", null, button),
    made,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(button, async () => {
      const share = Number(first.value) / 100;
      const body = { fractions: [share, 1 - share], seed: Number(seed.value) };
      const { data } = await post(path("datasets", `${rootOf(dataset)}@${dataset.version}`, "split"), body, { creates: true });
      fill(made, h("ul", null, data.map((part) => h("li", null, h("a", { href: `#${path("datasets", part.id)}` }, part.name), `, ${plural(part.num_accepted, "row")}`))));
    });
  });
  return h("details", null, h("summary", null, "Split it in two"), form);
}
