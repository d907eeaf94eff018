// Served answers that are kept, what people think of them, and the datasets that it becomes.

import { get, path, post, remove } from "../api.js";
import { voterName } from "../arena/words.js";
import { textSide } from "../data/row_view.js";
import { fill, h } from "../dom.js";
import { ago, date } from "../format.js";
import { act, ask, badge, empty, errorBox, loading, moreButton, toast } from "../parts.js";

const PAGE = 10;
const DELETE = [{ value: "yes", label: "Delete", kind: "danger" }];

export async function open(main, { signal }) {
  const list = h("div.stack", null, loading("answers"));
  const make = (kind, label) => {
    const button = h("button", { type: "button", onclick: () => act(button, () => cut(kind)) }, label);
    return button;
  };
  const erase = h("button.danger", { type: "button", onclick: () => act(erase, everything) }, "Delete all");
  main.append(
    h(
      "div.title-row",
      null,
      h("h1", { tabindex: "-1" }, "Feedback"),
      h("div.actions", null, make("preference", "Dataset of pairs"), make("unpaired", "Dataset of thumbs"), erase),
    ),
    h("div.stack", null, h("p.hint", null, "Answers that requests with “store: true” kept. Edits and preferences become pairs, thumbs rows for kto."), list),
  );
  const show = async () => {
    const rows = h("div.stack");
    const more = moreButton(
      (cursor) => get("/feedback/answers", { query: { limit: PAGE, cursor }, signal }),
      (answers) => rows.append(...answers.map((answer) => answerView(answer, show))),
      "Show older answers",
    );
    try {
      await more.start();
    } catch (error) {
      if (error.name !== "AbortError") fill(list, errorBox(error, show));
      return;
    }
    erase.disabled = !rows.childElementCount;
    fill(list, rows.childElementCount ? [rows, more.element] : nothing());
  };
  async function everything() {
    const text = "All kept answers of the project go, with what was said of them. Datasets that were made before stay.";
    if ((await ask("Delete all answers?", text, DELETE)) !== "yes") return;
    await remove("/feedback/answers");
    toast("Deleted.");
    await show();
  }
  await show();
}

function nothing() {
  return empty("No answers are kept", "An application's request keeps its answers with “store: true”, where its key allows it (“keeps answers” when a key is made).");
}

async function cut(kind) {
  const dataset = await post("/feedback/dataset", { kind }, { creates: true });
  location.hash = `#${path("datasets", dataset.id)}`;
}

function answerView(answer, refresh) {
  const said = async (given) => {
    await post("/feedback", { answer_id: answer.id, giver: voterName(), ...given }, { creates: true });
    await refresh();
  };
  const thumb = (value, label) => {
    const button = h("button.small", { type: "button", onclick: () => act(button, () => said({ thumb: value })) }, label);
    return button;
  };
  const erase = h("button.small.danger", { type: "button" }, "Delete");
  erase.addEventListener("click", () =>
    act(erase, async () => {
      if ((await ask("Delete this answer?", "What was said of it goes too.", DELETE)) !== "yes") return;
      await remove(path("feedback", "answers", answer.id));
      await refresh();
    }),
  );
  return h(
    "article.row-view",
    { "aria-label": answer.id, "data-answer": answer.id },
    h("div.title-row.flat", null, h("h2", null, answer.model), h("div.actions", null, thumb("up", "Good"), thumb("down", "Bad"), erase)),
    h("p.hint", null, `${ago(answer.created_at)}, key ${answer.key_id ?? "none"}; ${answer.expires_at ? `goes on ${date(answer.expires_at)} if nothing is said of it` : "stays, since somebody has said something of it"}`),
    textSide("Prompt", "plain", answer.prompt),
    textSide("Answer", "plain", answer.answer),
    answer.feedback.map((item) => itemView(item, answer)),
    editForm(answer, said),
  );
}

function itemView(item, answer) {
  const words = {
    thumb: () => [badge(item.thumb === "up" ? "good" : "bad", item.thumb === "up" ? "succeeded" : "failed")],
    edit: () => [badge("edited", "running"), textSide("As it should have been", "chosen", item.edit)],
    preference: () => [badge(item.answer_id === answer.id ? "better" : "worse", item.answer_id === answer.id ? "succeeded" : "failed"), h("span.hint", null, ` than ${item.answer_id === answer.id ? item.other_id : item.answer_id}`)],
  };
  return h("div", null, words[item.kind](), h("p.hint", null, [`${item.giver}, ${ago(item.created_at)}`, item.comment ? `: ${item.comment}` : null]));
}

function editForm(answer, said) {
  const text = h("textarea", { rows: "4", "aria-label": `Better text for ${answer.id}`, maxlength: "1000000" }, answer.answer);
  const button = h("button", { type: "submit" }, "Save the edit");
  const form = h("form.form", null, text, h("div.actions", null, button));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(button, () => said({ edit: text.value }));
  });
  return h("details", null, h("summary", null, "Edit it"), form);
}
