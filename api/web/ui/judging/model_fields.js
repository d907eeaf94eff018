// Models by name: as many fields as models, each with the names that there are to choose from.

import { fill, h } from "../dom.js";

/** `known`: [{name, label}]; `values`: names that are there at first. `names()` gives what is filled in. */
export function modelFields(id, known, values, most) {
  const list = h("datalist", { id: `${id}-known` }, known.map(({ name, label }) => h("option", { value: name, label })));
  const rows = h("div.stack");
  const inputs = () => [...rows.querySelectorAll("input")];
  const labels = new Map(known.map(({ name, label }) => [name, label]));
  const add = h("button", { type: "button", onclick: () => append("").focus() }, "Add a model");
  const tidy = () => {
    inputs().forEach((input, place) => {
      const fault = input.closest(".field").querySelector(".fault");
      fault.id = `${id}-${place}-fault`;
      input.setAttribute("aria-describedby", fault.id);
      input.id = `${id}-${place}`;
      input.setAttribute("aria-label", `Model ${place + 1}`);
      input.nextElementSibling.setAttribute("aria-label", `Remove model ${place + 1}`);
      input.nextElementSibling.hidden = inputs().length === 1;
    });
    add.hidden = inputs().length >= most;
  };
  const append = (value) => {
    const told = h("span.hint");
    const say = () => fill(told, labels.get(input.value.trim()) === input.value.trim() ? "" : (labels.get(input.value.trim()) ?? ""));
    const input = h("input", { type: "text", list: list.id, value, autocomplete: "off", maxlength: "255", required: true, oninput: say });
    const remove = h("button.quiet", { type: "button", onclick: () => (row.remove(), tidy()) }, "Remove");
    const row = h("div.field", null, h("div.with-button", null, input, remove), told, h("span.fault"));
    rows.append(row);
    say();
    tidy();
    return input;
  };
  for (const value of values.length ? values.slice(0, most) : [known[0]?.name ?? ""]) append(value);
  return {
    element: h("fieldset", null, h("legend", null, "Models"), rows, list, h("div.actions", null, add)),
    names: () => inputs().map((input) => input.value.trim()).filter(Boolean),
    /** Controls by JSON pointer. */
    controls: () => new Map(inputs().map((input, place) => [`/models/${place}`, input])),
  };
}
