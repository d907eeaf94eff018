// A new dataset of the rows of others.

import { listAll, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { plural } from "../format.js";
import { act, card, toast } from "../parts.js";

export function mergeCard(signal) {
  const sources = h("select", { id: "m-sources", multiple: true, size: "6", required: true });
  const name = h("input", { id: "m-name", maxlength: "255", autocomplete: "off", placeholder: "the names of all" });
  const unique = h("input", { type: "checkbox" });
  const button = h("button.primary", { type: "submit" }, "Merge");
  const form = h(
    "form.form",
    null,
    h("div.field", null, h("label", { for: "m-sources" }, "Datasets of one kind"), sources),
    h("div.field", null, h("label", { for: "m-name" }, "Name of the new dataset"), name),
    h("label.check", null, unique, "Of equal rows keep the first"),
    h("div.actions", null, button),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(button, async () => {
      const ids = [...sources.selectedOptions].map(({ value }) => value);
      const made = await post("/datasets/merge", { dataset_ids: ids, name: name.value.trim() || null, drop_duplicates: unique.checked }, { creates: true });
      toast(`${made.name} has ${plural(made.num_accepted, "row")}.`);
      location.hash = `#${path("datasets", made.id)}`;
    });
  });
  const details = h("details", null, h("summary", null, "Merge datasets into a new one"), form);
  details.addEventListener("toggle", () => details.open && act(button, () => offer(sources, signal)));
  return card(null, details);
}

async function offer(sources, signal) {
  const found = (await listAll("/datasets", { signal, pages: 2 })).filter(({ status }) => status === "ready");
  fill(sources, found.map(({ id, name, kind, num_accepted: number }) => h("option", { value: id }, `${name}, ${kind}, ${plural(number, "row")}`)));
}
