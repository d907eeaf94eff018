// Signing in with the key of the service. The key goes to the service once; the browser keeps a cookie that no script reads.

import { post } from "../api.js";
import { fill, h, withCode } from "../dom.js";
import { errorBox } from "../parts.js";

export function open(main, { setTitle, onSignedIn }) {
  setTitle("Sign in");
  const key = h("input", {
    type: "password",
    id: "key",
    name: "key",
    autocomplete: "current-password",
    required: true,
    spellcheck: "false",
  });
  const button = h("button.primary", { type: "submit" }, "Sign in");
  const trouble = h("div");
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await post("/ui/session", { api_key: key.value });
      await onSignedIn();
    } catch (error) {
      fill(trouble, errorBox(error));
      key.select();
    } finally {
      button.disabled = false;
    }
  };
  main.append(
    h(
      "form.card.sign-in",
      { onsubmit: submit },
      h("h1", { tabindex: "-1" }, "Sign in"),
      h(
        "p.hint",
        null,
        withCode(
          "This service needs an API key: one made with `preftune keys create`, or the one set as PREFTUNE_API_KEY where it runs. Without either, `preftune open` on its machine opens this page signed in. The browser stays signed in for twelve hours.",
        ),
      ),
      h("label", { for: "key" }, "API key"),
      key,
      trouble,
      button,
    ),
  );
  key.focus();
}
