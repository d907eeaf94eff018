// Keys of the project: make one, which is shown once, replace one, end one.

import { get, path, post, remove } from "../api.js";
import { fill, h } from "../dom.js";
import { ago } from "../format.js";
import { act, ask, badge, card, empty, loading, moreButton, notice, table, tableRow, toast } from "../parts.js";

const PAGE = 50;
const SCOPES = [
  ["use", "use: chat, scores and feedback, nothing else"],
  ["read", "read: look and download"],
  ["write", "write: upload, submit, steer, delete"],
  ["admin", "admin: and keys and audit trail of the project"],
  ["operator", "operator: and the deployment, for operators only"],
];

export async function open(main, { signal }) {
  const secret = h("div", { "aria-live": "polite" });
  const content = h("div", null, loading("keys"));
  main.append(
    h("div.title-row", null, h("h1", { tabindex: "-1" }, "Keys")),
    h("div.stack", null, makeCard((key) => made(key)), secret, content),
  );
  const refresh = async () => show(content, await get("/keys", { query: { limit: PAGE }, signal }), signal, made, refresh);
  function made(key) {
    fill(secret, key ? secretView(key) : null);
    return refresh();
  }
  await refresh();
}

function makeCard(onMade) {
  const name = h("input", { id: "k-name", required: true, maxlength: "100", autocomplete: "off" });
  const scope = h(
    "select",
    { id: "k-scope" },
    SCOPES.map(([value, text]) => h("option", { value, selected: value === "write" }, text)),
  );
  const days = h("input", { id: "k-days", type: "number", min: "1", max: "3650", placeholder: "until revoked" });
  const keeps = h("input", { type: "checkbox" });
  const button = h("button.primary", { type: "submit" }, "Make the key");
  const form = h(
    "form.form",
    null,
    h("div.field", null, h("label", { for: "k-name" }, "Name"), name),
    h("div.field", null, h("label", { for: "k-scope" }, "May"), scope),
    h("div.field", null, h("label", { for: "k-days" }, "Days"), days),
    h("label.check", null, keeps, "Keeps answers for feedback, where a request says so"),
    h("div.actions", null, button),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(button, async () => {
      const body = { name: name.value.trim(), scope: scope.value, keeps_answers: keeps.checked };
      if (days.value) body.expires_in_seconds = Number(days.value) * 24 * 3600;
      const key = await post("/keys", body, { creates: true });
      name.value = "";
      await onMade(key);
    });
  });
  return card("New key", form);
}

function secretView(key) {
  return notice(
    "warning",
    h("strong", null, `${key.name}: copy the key now; it is not shown again`),
    h("p", null, h("code", { "data-focus": "secret" }, key.token ?? "")),
  );
}

function show(content, page, signal, made, refresh) {
  if (!page.data.length) {
    fill(content, empty("No keys yet", "Make one for each program or person, so that each can be ended by itself."));
    return;
  }
  const body = h(
    "tbody",
    null,
    page.data.map((key) => row(key, made)),
  );
  const heads = ["Name", "May", "State", "Made", "Last used", ""];
  const more = moreButton(
    (cursor) => get("/keys", { query: { limit: PAGE, cursor }, signal }),
    (items) => body.append(...items.map((key) => row(key, made))),
  );
  fill(content, table(heads, body), more.element);
  if (page.next_cursor) {
    const button = h("button", { type: "button" }, "Show older keys");
    button.addEventListener("click", () => act(button, () => more.start(page.next_cursor)));
    fill(more.element, button);
  }
}

function row(key, made) {
  const state = key.revoked_at ? "revoked" : key.is_live ? "works" : "expired";
  const until = key.is_live && key.expires_at ? ` until ${key.expires_at.slice(0, 10)}` : "";
  return tableRow(
    [key.name, h("div.muted.mono", null, key.id)],
    key.scope,
    badge(state + until, key.is_live ? "succeeded" : "cancelled"),
    ago(key.created_at),
    key.last_used_at ? ago(key.last_used_at) : "never",
    key.is_live ? actions(key, made) : null,
  );
}

function actions(key, made) {
  const rotate = h("button", { type: "button" }, "Replace");
  const end = h("button", { type: "button" }, "End");
  rotate.addEventListener("click", () =>
    act(rotate, async () => made(await post(path("keys", key.id, "rotate"), {}, { creates: true }))),
  );
  end.addEventListener("click", async () => {
    const choice = await ask(`End ${key.name}?`, "Whatever uses this key is refused within two seconds.", [
      { label: "End the key", value: "end", kind: "danger" },
    ]);
    if (choice !== "end") return;
    await act(end, async () => {
      await remove(path("keys", key.id));
      toast(`${key.name} is ended`);
      await made(null);
    });
  });
  return h("div.actions", null, rotate, end);
}
