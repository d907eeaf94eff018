// The form that adds a member to a sweep.

import { fill, h } from "../dom.js";
import { pathName } from "../form/layout.js";
import { act, errorBox, toast } from "../parts.js";

/** One more job, with a value for each setting that the sweep varies; `onAdd` gets the members to add. */
export function extensionForm(paths, onAdd) {
  const fields = paths.map((path, place) => {
    const control = h("input", { type: "text", id: `extend-${place}`, autocomplete: "off", required: true });
    return { path, control, element: h("div.field", null, h("label", { for: control.id }, pathName(`/${path}`)), control) };
  });
  const button = h("button", { type: "submit" }, "Add the job");
  const trouble = h("div");
  const submit = (event) => {
    event.preventDefault();
    act(button, async () => {
      fill(trouble);
      try {
        await onAdd([Object.fromEntries(fields.map(({ path, control }) => [path, valueOf(control.value.trim())]))]);
        for (const { control } of fields) control.value = "";
        toast("Added.");
      } catch (error) {
        fill(trouble, errorBox(error));
      }
    });
  };
  return h(
    "details.card",
    null,
    h("summary", null, "Add a job to this sweep"),
    h("form.stack", { onsubmit: submit, "aria-label": "Add a job to this sweep" }, h("div.two", null, fields.map(({ element }) => element)), trouble, h("div.actions", null, button)),
  );
}

function valueOf(text) {
  if (text === "") return null;
  if (text === "yes" || text === "no") return text === "yes";
  return Number.isFinite(Number(text)) ? Number(text) : text;
}
