// All arenas, and a form for a new one: two models answer the prompts of a dataset, or a file's rows are judged.

import { get, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { field } from "../form/plain.js";
import { ago, plural } from "../format.js";
import { act, badge, card, empty, loading, moreButton, table, tableRow } from "../parts.js";
import { rateText } from "../arena/words.js";

const PAGE = 20;
const HEADS = ["Arena", "State", "Pairs", "Better so far", "Created"];

export async function open(main, { query, signal }) {
  const list = h("div", null, loading("arenas"));
  const form = h("div");
  main.append(
    h("div.title-row", null, h("h1", { tabindex: "-1" }, "Arena")),
    h("div.columns", null, h("div.stack", null, list), h("aside.stack", null, form)),
  );
  const load = (cursor) => get("/arenas", { query: { limit: PAGE, cursor }, signal });
  const [page, models, datasets] = await Promise.all([
    load(null),
    get("/models", { query: { limit: 100 }, signal }),
    get("/datasets", { query: { limit: 100 }, signal }),
  ]);
  fill(form, newArena(models.data, datasets.data.filter(({ status }) => status === "ready"), query));
  if (!page.data.length) {
    const text = "Two models answer the same prompts; you see both answers without their names and say which is better. The votes become a dataset that a job can train on.";
    fill(list, empty("No arenas yet", text));
    return;
  }
  const body = h("tbody", null, page.data.map(row));
  const more = moreButton(load, (items) => body.append(...items.map(row)), "Show older arenas");
  more.offer(page.next_cursor);
  fill(list, table(HEADS, body), more.element);
}

function row(arena) {
  const [best, other] = arena.standing;
  return tableRow(
    [h("a", { href: `#${path("arena", arena.id)}` }, arena.name ?? `${best.model} and ${other.model}`), h("div.muted.mono", null, arena.id)],
    badge(arena.is_open ? "open" : "closed", arena.is_open ? "running" : "cancelled"),
    `${arena.num_decided} of ${plural(arena.num_pairs, "pair")} judged`,
    arena.num_votes ? [best.model, h("div.hint", null, rateText(best))] : "–",
    ago(arena.created_at),
  );
}

function newArena(models, datasets, query) {
  const names = [...new Set(models.map(({ name }) => name))];
  const [first, second] = ["a-first", "a-second"].map((id, place) =>
    h("input", { id, list: "a-models", autocomplete: "off", maxlength: "255", value: query.get(place ? "second" : "first") ?? names[place] ?? "" }),
  );
  const source = h("select", { id: "a-dataset" }, datasets.map(({ id, name }) => h("option", { value: id }, name)));
  const kind = h(
    "select",
    { id: "a-kind" },
    h("option", { value: "models" }, "Two models answer prompts"),
    h("option", { value: "rows" }, "Rows of a dataset, chosen against rejected"),
  );
  const number = h("input", { id: "a-number", type: "number", min: "1", max: "2000", value: "50", required: true });
  const tokens = h("input", { id: "a-tokens", type: "number", min: "1", max: "8192", value: "256", required: true });
  const name = h("input", { id: "a-name", maxlength: "255", autocomplete: "off" });
  const button = h("button.primary", { type: "submit" }, "Make the arena");
  const ofModels = h(
    "fieldset",
    null,
    field("First model", first),
    field("Second model", second),
    field("Longest answer, in tokens", tokens),
    h("datalist", { id: "a-models" }, names.map((value) => h("option", { value }))),
  );
  kind.addEventListener("change", () => {
    ofModels.hidden = kind.value === "rows";
  });
  const form = h(
    "form.form",
    null,
    field("What is compared", kind),
    ofModels,
    field("Prompts or rows of", source),
    field("Pairs at most", number),
    field("Name", name),
    h("div.actions", null, button),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(button, async () => {
      const body = { dataset_id: source.value, num_pairs: Number(number.value), name: name.value.trim() || null };
      if (kind.value === "models") {
        body.models = [first.value.trim(), second.value.trim()];
        body.sampling = { max_tokens: Number(tokens.value) };
      }
      const arena = await post("/arenas", body, { creates: true });
      location.hash = `#${path("arena", arena.id)}`;
    });
  });
  return card("New arena", datasets.length ? form : h("p.hint", null, "Upload a dataset first: its prompts, or its rows, are what is compared."));
}
