// Small pieces that all pages share.

import { Problem, Unreachable } from "./api.js";
import { fill, h, icon } from "./dom.js";

/** Jobs that can be compared at once. */
export const MAX_COMPARED = 8;
const PENDING = { pause: "pausing", cancel: "cancelling" };
export const FINAL = new Set(["succeeded", "failed", "cancelled"]);

/** What a job is doing, with what was asked of it and is not so yet. */
export function statusWord(job) {
  return (job.status === "running" && PENDING[job.desired]) || job.status;
}

export function badge(word, kind = word) {
  return h("span.badge", { class: `is-${kind}` }, h("span.dot", { "aria-hidden": "true" }), word);
}

export function jobBadge(job) {
  return badge(statusWord(job), job.status);
}

export function bar(fraction, label) {
  const element = h("progress", { max: "1", "aria-label": label });
  if (fraction !== null) element.value = fraction;
  return element;
}

/** Rows are `tr` elements, or a `tbody` that holds them. */
export function table(heads, rows) {
  const head = h(
    "tr",
    null,
    heads.map((content) => (content === "" ? h("td") : h("th", { scope: "col" }, content))),
  );
  const body = rows instanceof Element ? rows : h("tbody", null, rows);
  return h("div.table-holder", { tabindex: "0", role: "group", "aria-label": "Table" }, h("table.tight", null, h("thead", null, head), body));
}

/** A `tr` with a cell for each of the contents. */
export function tableRow(...contents) {
  return h(
    "tr",
    null,
    contents.map((content) => h("td", null, content)),
  );
}

export function loading(what) {
  return h("div.state", { role: "status" }, h("span.spinner", { "aria-hidden": "true" }), `Loading ${what} …`);
}

export function empty(title, text, ...actions) {
  return h("div.state.empty", null, h("h2", null, title), h("p", null, text), h("div.actions", null, actions));
}

/** What went wrong and what to do about it. */
export function errorBox(error, retry) {
  return h(
    "div.notice.is-error",
    { role: "alert" },
    icon("error"),
    h(
      "div",
      null,
      h("strong", null, error.title ?? "Something went wrong in the dashboard"),
      h("p", null, error.message),
      error.errors?.length > 1
        ? h(
            "ul",
            null,
            error.errors.map(({ pointer, detail }) =>
              h("li", null, pointer ? h("code", null, pointer) : null, " ", detail),
            ),
          )
        : null,
      h("p.hint", null, advice(error)),
      retry ? h("button", { type: "button", onclick: retry }, "Try again") : null,
    ),
  );
}

function advice(error) {
  if (error instanceof Unreachable) return "";
  if (!(error instanceof Problem)) return "Reload the page. If it comes back, report it with the browser's console.";
  if (error.status === 404) return "It may have been deleted; go back to the list.";
  if (error.status >= 500) return `The service's log has the reason under request ${error.requestId ?? "id"}.`;
  return "";
}

export function notice(level, ...content) {
  return h("div.notice", { class: `is-${level}` }, icon(level), h("div", null, content));
}

export function toast(text, level = "info") {
  const element = h("div.toast", { class: `is-${level}` }, icon(level === "info" ? "check" : level), text);
  document.getElementById("toasts").append(element);
  setTimeout(() => element.remove(), level === "error" ? 9000 : 4000);
}

/** Run what a button asks for; a failure is told, and the button is usable again. */
export async function act(button, work) {
  button.disabled = true;
  try {
    return await work();
  } catch (error) {
    toast(error.message, "error");
    return undefined;
  } finally {
    button.disabled = false;
  }
}

/** Ask; the value of the chosen button, or null. Escape and "Back" choose nothing. */
export function ask(title, text, choices) {
  return new Promise((resolve) => {
    const close = (value) => {
      dialog.close();
      dialog.remove();
      resolve(value);
    };
    const buttons = choices.map(({ value, label, kind }) =>
      h("button", { type: "button", class: kind ?? "", onclick: () => close(value) }, label),
    );
    const dialog = h(
      "dialog",
      { "aria-label": title, oncancel: () => close(null) },
      h("h2", null, title),
      h("p", null, text),
      h(
        "div.actions",
        null,
        h("button.quiet", { type: "button", autofocus: true, onclick: () => close(null) }, "Back"),
        buttons,
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A button that asks before it ends a thing: what `label` says is done to the `what`. */
export function confirmButton(what, label, iconName, text, work) {
  const button = h("button.danger", { type: "button" }, icon(iconName), label);
  button.addEventListener("click", () =>
    act(button, async () => {
      if (await ask(`${label} this ${what}?`, text, [{ value: "yes", label: `${label} the ${what}`, kind: "danger" }])) await work();
    }),
  );
  return button;
}

export function copyable(text, shown = text) {
  const button = h(
    "button.quiet.small",
    { type: "button", title: `Copy ${text}`, "aria-label": `Copy ${text}` },
    icon("copy"),
  );
  button.addEventListener("click", () =>
    act(button, async () => {
      await navigator.clipboard.writeText(text);
      toast("Copied.");
    }),
  );
  return h("span.copyable", null, h("code", { title: text }, shown), navigator.clipboard ? button : null);
}

export function card(title, ...content) {
  return h(
    "section.card",
    { "aria-label": typeof title === "string" ? title : null },
    title ? h("h2", null, title) : null,
    content,
  );
}

export function facts(pairs) {
  return h(
    "dl.facts",
    null,
    pairs.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]),
  );
}

/** A list that grows by pages: `load(cursor)` gives {data, next_cursor}, `show(items)` puts them on the page. */
export function moreButton(load, show, label = "Show more") {
  const holder = h("div.more");
  const step = async (cursor) => {
    const page = await load(cursor);
    show(page.data);
    offer(page.next_cursor);
  };
  /** The button for the page from a cursor on; nothing where there is none. */
  const offer = (cursor) => {
    const button = h("button", { type: "button" }, label);
    button.addEventListener("click", () => act(button, () => step(cursor)));
    fill(holder, cursor ? button : null);
  };
  return { element: holder, start: (cursor = null) => step(cursor), offer };
}
