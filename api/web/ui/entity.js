// What the pages of one generation, judgement, sweep or run of rounds share: title, progress, and the buttons that steer it.

import { post, remove } from "./api.js";
import { h, icon } from "./dom.js";
import { count, date } from "./format.js";
import { act, badge, bar, confirmButton, copyable, toast } from "./parts.js";

/** The title with the state, under it the id and the date; `told` goes on behind the date. */
export function pageTitle({ id, name, status, created }, kind = status, told = "") {
  return [
    h("h1", { tabindex: "-1", "data-focus": "title" }, name ?? id, " ", badge(status, kind)),
    h("p.hint", null, copyable(id), ` · created ${date(created)}${told}`),
  ];
}

/** How much is done, as a bar and in figures. */
export function progressRow(label, done, number, told = `${count(done)}/${count(number)}`) {
  return h("div.bar-row", null, bar(number ? done / number : 0, label), h("span.number", null, told));
}

/** `progressRow` in per cent. */
export function progressShare(label, done, number) {
  return progressRow(label, done, number, `${Math.round((100 * done) / Math.max(1, number))} %`);
}

/** Buttons that steer the `what` at an address; `take` shows it as the service answers, `list` names the page of all. */
export function steering(what, address, list, take) {
  const send = async (verb) => take(await post(`${address}/${verb}`));
  return {
    button(label, name, verb) {
      const button = h("button", { type: "button", "data-focus": verb }, icon(name), label);
      button.addEventListener("click", () => act(button, () => send(verb)));
      return button;
    },
    cancel: (text) => confirmButton(what, "Cancel", "stop", text, () => send("cancel")),
    erase: (text) =>
      confirmButton(what, "Delete", "trash", text, async () => {
        await remove(address);
        toast("Deleted.");
        location.hash = `#/${list}`;
      }),
  };
}
