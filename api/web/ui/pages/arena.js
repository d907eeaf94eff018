// One arena: a pair after the other, judged by keyboard or buttons; the standing beside it.

import { get, patch, path, post, remove } from "../api.js";
import { rateText, voterName } from "../arena/words.js";
import { textSide } from "../data/row_view.js";
import { fill, h, Region } from "../dom.js";
import { plural } from "../format.js";
import { act, ask, badge, card, empty, errorBox, facts, loading, toast } from "../parts.js";

const AHEAD = 2; // the next pair is answered while this one is read
const VERDICTS = [
  ["left", "Left is better", ["ArrowLeft", "1", "a"]],
  ["right", "Right is better", ["ArrowRight", "2", "d"]],
  ["tie", "Tie", ["ArrowUp", "3", "t"]],
  ["both_bad", "Both bad", ["ArrowDown", "4", "b"]],
];
const SHOWN_KEYS = { left: "←", right: "→", tie: "↑", both_bad: "↓" };

export async function open(main, { parameters: [id], signal, setTitle, fail }) {
  const address = path("arenas", id);
  const voter = voterName();
  let arena = await get(address, { signal });
  setTitle(arena.name ?? "Arena");
  const state = new Region("span", null, (isOpen) => badge(isOpen ? "open" : "closed", isOpen ? "running" : "cancelled"));
  const stage = h("div", { "aria-live": "polite" }, loading("pair"));
  const last = h("p.hint", { role: "status" });
  const standing = new Region("div", null, standingView);
  const comment = h("input", { id: "a-comment", maxlength: "4000", autocomplete: "off", placeholder: "optional" });
  const buttons = VERDICTS.map(([value, label]) =>
    h("button", { type: "button", "data-verdict": value, "aria-keyshortcuts": SHOWN_KEYS[value], onclick: () => vote(value) }, label, " ", h("kbd", null, SHOWN_KEYS[value])),
  );
  const train = h("button.primary", { type: "button", onclick: () => act(train, cut) }, "New job on these votes");
  const undo = h("button.quiet", { type: "button", disabled: true, onclick: () => act(undo, takeBack) }, "Take the last vote back");
  const close = h("button", { type: "button", onclick: () => act(close, toggle) });
  const erase = h("button.danger", { type: "button", onclick: () => act(erase, destroy) }, "Delete");
  main.append(
    h("div.title-row", null, h("h1", { tabindex: "-1" }, arena.name ?? "Arena", " ", state.element), h("div.actions", null, close, erase)),
    h(
      "div.columns",
      null,
      h("div.stack", null, stage, h("div.actions", null, buttons), h("div.field", null, h("label", { for: "a-comment" }, "Comment"), comment), last, h("div.actions", null, undo)),
      h("aside.stack", null, card("Standing", standing.element), card("Train on it", h("p.hint", null, "Every pair with a better answer is a row: chosen and rejected."), h("div.actions", null, train))),
    ),
  );
  let held = [];
  let isBusy = false;
  let lastVote = null;

  const tell = () => {
    standing.show(arena);
    state.show(arena.is_open);
    close.textContent = arena.is_open ? "Close" : "Open again";
    train.disabled = !arena.standing.some(({ wins }) => wins > 0);
    undo.disabled = lastVote === null;
    for (const button of buttons) button.disabled = isBusy || !held.length;
  };

  async function next() {
    if (!arena.is_open) {
      held = [];
      fill(stage, empty("The arena is closed", "Its votes stay; open it again to go on."));
      return tell();
    }
    try {
      const leased = await post(`${address}/leases`, { voter, count: AHEAD }, { signal });
      held = leased.data;
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      held = [];
      fill(stage, errorBox(error, next));
      return tell();
    }
    fill(stage, held.length ? pairView(held[0], arena) : empty("Nothing left to judge", "Every pair has its votes, or others look at the rest now."));
    return tell();
  }

  async function vote(verdict) {
    if (isBusy || !held.length) return;
    isBusy = true;
    tell();
    const body = { pair_id: held[0].id, verdict, comment: comment.value.trim() || null, voter };
    try {
      lastVote = await post(`${address}/votes`, body, { creates: true });
      comment.value = "";
      fill(last, `Left was ${lastVote.left}, right was ${lastVote.right}.`);
      held = held.slice(1);
      if (held.length) fill(stage, pairView(held[0], arena));
      else fill(stage, loading("pair"));
    } catch (error) {
      toast(error.message, "error");
    }
    isBusy = false;
    tell();
    arena = await get(address, { signal }).catch(() => arena);
    await next();
  }

  async function takeBack() {
    await remove(`${address}${path("votes", lastVote.id)}`);
    lastVote = null;
    fill(last, "Taken back.");
    arena = await get(address, { signal });
    await next();
  }

  async function cut() {
    const dataset = await post(`${address}/dataset`, undefined, { creates: true });
    location.hash = `#/new?dataset_id=${encodeURIComponent(dataset.id)}`;
  }

  async function toggle() {
    arena = await patch(address, { is_open: !arena.is_open });
    await next();
  }

  async function destroy() {
    const text = "Its pairs and votes go. A dataset that was made of them stays.";
    if ((await ask("Delete this arena?", text, [{ label: "Delete", value: "delete", kind: "danger" }])) !== "delete") return;
    await remove(address);
    location.hash = "#/arena";
  }

  addEventListener(
    "keydown",
    (event) => {
      const isTyping = event.target.closest?.("input, select, textarea, dialog");
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isTyping) return;
      const found = VERDICTS.find(([, , keys]) => keys.includes(event.key));
      if (!found) return;
      event.preventDefault();
      vote(found[0]).catch(fail);
    },
    { signal },
  );
  await next();
}

function pairView(pair, arena) {
  return h(
    "article.row-view",
    { "aria-label": `Pair ${pair.position}`, "data-pair": pair.id },
    h("h2", null, `Pair ${pair.position} of ${arena.num_pairs}`),
    textSide("Prompt", "plain", pair.prompt),
    h("div.two", null, textSide("Left", "plain", pair.left), textSide("Right", "plain", pair.right)),
  );
}

function standingView(arena) {
  return [
    arena.standing.map((item) => h("div", null, h("strong", null, item.model), h("div.hint", null, arena.num_votes ? rateText(item) : "no votes yet"))),
    facts([
      ["Judged", `${arena.num_decided} of ${plural(arena.num_pairs, "pair")}`],
      ["Votes", `${arena.num_votes}, of ${plural(arena.num_voters, "voter")}`],
      ["Ties", String(arena.num_ties)],
      ["Both bad", String(arena.num_both_bad)],
      ["Not asked", `${arena.num_equal} with equal answers, ${arena.num_failed} failed`],
    ]),
  ];
}
