// Fields of small forms: a label, a control, a hint, and the fault that the service found in it.

import { fill, h } from "../dom.js";
import { act, errorBox } from "../parts.js";

/** A labelled control; its id names it. */
export function field(label, control, hint) {
  const fault = h("span.fault", { id: `${control.id}-fault` });
  const about = hint ? h("span.hint", { id: `${control.id}-hint` }, hint) : null;
  control.setAttribute("aria-describedby", [about?.id, fault.id].filter(Boolean).join(" "));
  return h("div.field", null, h("label", { for: control.id }, label), control, about, fault);
}

export function select(id, options, value) {
  const control = h("select", { id }, options.map(([name, text]) => h("option", { value: name }, text)));
  if (value !== undefined && options.some(([name]) => name === value)) control.value = value;
  return control;
}

export function number(id, value, bounds = {}) {
  return h("input", { type: "number", id, value, ...bounds });
}

/** What a number's field holds; null where it is empty. */
export function read(control) {
  return control.value === "" ? null : Number(control.value);
}

/**
 * A form that posts what it holds: `send()` does so, and faults stand at the controls that `controls` has by pointer, the
 * others above the button.
 */
export function postingForm(label, { fields, button, controls, send }) {
  const submit = h("button.primary", { type: "submit" }, button);
  const trouble = h("div", { role: "status" });
  const clear = () => {
    fill(trouble);
    markFaults(controls(), []);
  };
  const onsubmit = (event) => {
    event.preventDefault();
    act(submit, async () => {
      clear();
      try {
        await send();
      } catch (error) {
        if (error.name === "AbortError") return;
        fill(trouble, showFaults(error, controls()));
      }
    });
  };
  return h("form.stack", { "aria-label": label, onsubmit }, fields, trouble, h("div.actions", null, submit));
}

/** Marks the controls at fault; returns what is to be said beside, if anything is left. */
function showFaults(error, controls) {
  const left = markFaults(controls, error.errors ?? []);
  const first = [...controls.values()].find((control) => control.getAttribute("aria-invalid") === "true");
  first?.focus();
  return first && !left.length ? null : errorBox(first ? Object.assign(error, { errors: left }) : error);
}

/** Marks the controls at fault and clears the others; returns the faults that no control shows. */
export function markFaults(controls, errors) {
  for (const control of controls.values()) mark(control, "");
  return errors.filter(({ pointer, detail }) => {
    const control = nearest(controls, pointer ?? "");
    if (control) mark(control, detail);
    return !control;
  });
}

function nearest(controls, pointer) {
  for (let at = pointer; at; at = at.replace(/\/[^/]*$/, "")) if (controls.has(at)) return controls.get(at);
  return null;
}

function mark(control, text) {
  const fault = document.getElementById(`${control.id}-fault`);
  if (fault) fill(fault, text);
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}
