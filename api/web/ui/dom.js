// Elements from plain values. Whatever is a string becomes a text node: nothing here, or anywhere in the dashboard,
// reads text as HTML, and the page's policy (trusted types) makes the browser refuse it.

/**
 * h("button.primary", {type: "button", onclick: save}, "Save")
 * Properties: on… are listeners, `class` adds classes, true and false set and leave out an attribute.
 */
export function h(tag, properties, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties ?? {})) setProperty(element, key, value);
  element.append(...flatten(children));
  return element;
}

function setProperty(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else if (key === "class") element.classList.add(...value.split(" ").filter(Boolean));
  else if (key === "value" || key === "checked") element[key] = value;
  else element.setAttribute(key, value === true ? "" : value);
}

function flatten(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

/** Text in which `names` between backticks are set as code. */
export function withCode(text) {
  return text.split(/`([^`\n]+)`/).map((part, index) => (index % 2 ? h("code", null, part) : part));
}

/** Replace what is in the element. */
export function fill(element, ...children) {
  element.replaceChildren(...flatten(children));
  return element;
}

/** A region that is made anew only when the value it shows has changed, and keeps the focus when it is. */
export class Region {
  #shown;

  constructor(tag, properties, render) {
    this.element = h(tag, properties);
    this.render = render;
  }

  show(value) {
    const text = JSON.stringify(value);
    if (text === this.#shown) return;
    this.#shown = text;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    fill(this.element, this.render(value));
    if (focused) this.element.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }
}

/** Rows that stay the same elements while their content changes: focus and selection survive. */
export class KeyedRows {
  #rows = new Map();

  constructor(container, keyOf, make) {
    this.container = container;
    this.keyOf = keyOf;
    this.make = make;
  }

  /** What `make` gave for an item; undefined where it is not shown. */
  row(key) {
    return this.#rows.get(key);
  }

  show(items) {
    const kept = new Map();
    for (const item of items) {
      const key = this.keyOf(item);
      const row = this.#rows.get(key) ?? this.make(item);
      row.update(item);
      kept.set(key, row);
    }
    for (const [key, row] of this.#rows) if (!kept.has(key)) row.element.remove();
    let place = this.container.firstElementChild;
    for (const { element } of kept.values()) {
      if (element === place) place = place.nextElementSibling;
      else this.container.insertBefore(element, place);
    }
    this.#rows = kept;
  }
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const ICONS = {
  pause: "M5 3v10M11 3v10",
  play: "M5 3l8 5-8 5z",
  stop: "M4 4h8v8H4z",
  retry: "M13 8a5 5 0 1 1-1.5-3.5M13 2v3h-3",
  trash: "M3 4h10M6 4V2.5h4V4M4.5 4l.5 9.5h6l.5-9.5",
  download: "M8 2v8M4.5 7L8 10.5 11.5 7M3 13.5h10",
  upload: "M8 11V3M4.5 6L8 2.5 11.5 6M3 13.5h10",
  copy: "M5.5 5.5h8v8h-8zM10.5 5V2.5h-8v8H5",
  warning: "M8 2l6.5 11.5h-13zM8 6.5v3M8 11.3v.4",
  error: "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
  info: "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM8 7v4M8 4.8v.4",
  check: "M3 8.5l3.5 3.5L13 4.5",
  expand: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
};
