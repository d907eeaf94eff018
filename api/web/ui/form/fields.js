// One field for one setting: its control, what it reads, what it writes, and the fault shown below it.

import { h } from "../dom.js";
import { setting as shown } from "../format.js";

/**
 * A field is {control, element, fault, read, write}: `read` gives undefined where it is empty, so that the default of
 * the service holds; `write(value)` shows any value of the setting, so that `read` gives the same value back.
 */
export function makeField(setting, { label, hint = setting.description, options } = {}) {
  if (options) return select(setting, label, hint, options);
  return (MAKERS[setting.kind] ?? text)(setting, label, hint);
}

const MAKERS = {
  choice: (setting, label, hint) =>
    select(setting, label, hint, [["", unset(setting)], ...setting.keywords.map((word) => [word, word])]),
  boolean: (setting, label, hint) =>
    select(
      setting,
      label,
      hint,
      [["", unset(setting)], ...(setting.keywords ?? []).map((word) => [word, word]), [true, "yes"], [false, "no"]],
    ),
  integer: number,
  number,
  lines: (setting, label, hint) => list(setting, label, hint, { placeholder: "such as 3, 17, 120", split: /[\s,;]+/ }),
  names: (setting, label, hint) => list(setting, label, hint, { placeholder: unset(setting), split: /[\s,;]+/ }),
  texts: (setting, label, hint) => list(setting, label, hint, { placeholder: "one a line", split: /\n/, rows: 3 }),
  map,
};

export function idOf(pointer) {
  return `f${pointer.replaceAll("/", "-")}`;
}

export function frame(setting, label, hint, control, { read, write }) {
  const fault = h("span.fault", { id: `${control.id}-fault` });
  const about = h("span.hint", { id: `${control.id}-hint` }, hint ?? "");
  control.setAttribute("aria-describedby", `${about.id} ${fault.id}`);
  const element = h("div.field", null, h("label", { for: control.id }, label), control, about, fault);
  return { setting, control, element, fault, about, read, write };
}

function unset({ default: value }) {
  return value === null || value === undefined ? "not set" : `${shown(value)} (default)`;
}

/** Values are of any plain type; the options are found again by their place. */
function select(setting, label, hint, options) {
  const control = h("select", { id: idOf(setting.pointer) });
  let values = [];
  const fill = (pairs) => {
    values = pairs.map(([value]) => value);
    control.replaceChildren(...pairs.map(([, name], place) => h("option", { value: String(place) }, name)));
  };
  const write = (value) => {
    if (!values.includes(value)) {
      values.push(value);
      control.append(h("option", { value: String(values.length - 1) }, `${shown(value)} (not offered here)`));
    }
    control.value = String(values.indexOf(value));
  };
  fill(options);
  const read = () => {
    const value = values[Number(control.value)];
    return value === "" ? undefined : value;
  };
  const field = frame(setting, label, hint, control, { read, write });
  /** Offer other options; what was chosen stays where it is among them. */
  field.offer = (pairs) => {
    const before = read();
    fill(pairs);
    if (values.includes(before)) write(before);
  };
  return field;
}

function number(setting, label, hint) {
  const attributes = { type: "text", inputmode: "decimal", id: idOf(setting.pointer), autocomplete: "off" };
  const control = h("input", { ...attributes, placeholder: unset(setting) });
  const read = () => {
    const given = control.value.trim();
    if (!given) return undefined;
    return Number.isFinite(Number(given)) ? Number(given) : given;
  };
  return frame(setting, label, hint, control, { read, write: (value) => (control.value = String(value)) });
}

function text(setting, label, hint) {
  const control = h("input", { type: "text", id: idOf(setting.pointer), maxlength: "255", autocomplete: "off" });
  const read = () => control.value.trim() || undefined;
  return frame(setting, label, hint, control, { read, write: (value) => (control.value = value) });
}

/** Entries between separators, or a JSON array, which holds entries with separators in them. */
function list(setting, label, hint, { placeholder, split, rows }) {
  const attributes = { id: idOf(setting.pointer), placeholder, autocomplete: "off" };
  const control = rows ? h("textarea", { ...attributes, rows }) : h("input", { ...attributes, type: "text" });
  const convert = (entry) => (setting.kind === "lines" && /^\d+$/.test(entry) ? Number(entry) : entry);
  const read = () => {
    const given = control.value.trim();
    if (!given) return undefined;
    if (setting.keywords?.includes(given)) return given;
    if (given.startsWith("[")) return parsed(given);
    return given.split(split).map((entry) => convert(entry.trim())).filter((entry) => entry !== "");
  };
  const write = (value) => {
    const isPlain = Array.isArray(value) && value.length && value.every((entry) => String(entry).split(split).length === 1);
    const glue = rows ? "\n" : ", ";
    control.value = typeof value === "string" ? value : isPlain ? value.join(glue) : JSON.stringify(value);
    if (JSON.stringify(read()) !== JSON.stringify(value)) control.value = JSON.stringify(value);
  };
  return frame(setting, label, hint, control, { read, write });
}

function map(setting, label, hint) {
  const control = h("textarea", { id: idOf(setting.pointer), placeholder: '{"name": "value"}', rows: 2 });
  const read = () => (control.value.trim() ? parsed(control.value) : undefined);
  return frame(setting, label, hint, control, { read, write: (value) => (control.value = JSON.stringify(value)) });
}

/** The value of a JSON text; the text itself where it is none, which the service refuses with the place. */
function parsed(given) {
  try {
    return JSON.parse(given);
  } catch {
    return given;
  }
}
