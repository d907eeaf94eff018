// A model with its conversation: what it was asked, and its answers with their rewards.

import { fill, h, icon } from "../dom.js";
import { signed } from "../format.js";
import { errorBox } from "../parts.js";
import { chat } from "./chat.js";

/** Nats of a token's log-ratio from which on it is coloured more strongly. */
const STRENGTHS = [0.1, 0.5, 1.5];

export class Column {
  #turns = [];
  #control = null;

  constructor(model, label, { onRemove }) {
    this.model = model;
    this.log = h("div.stack", { role: "log", "aria-label": `Conversation with ${label}` });
    this.stop = h("button.small", { type: "button", hidden: true, onclick: () => this.#control?.abort() }, icon("stop"), "Stop");
    const remove = h("button.quiet.small", { type: "button", "aria-label": `Remove ${label}`, onclick: () => onRemove(this) }, icon("trash"));
    this.element = h(
      "section.card.play-column",
      { "aria-label": label },
      h("div.play-head", null, h("h2", null, label), h("div.actions", null, this.stop, remove)),
      this.log,
    );
  }

  get isBusy() {
    return this.#control !== null;
  }

  clear() {
    this.close();
    this.#turns = [];
    fill(this.log);
  }

  close() {
    this.#control?.abort();
  }

  /** Ask the next question; the page's end, or Stop, ends the answer. */
  async ask(before, prompt, sampling, { signal, isTuned }) {
    const answer = new AnswerView();
    this.log.append(h("div", null, h("span.role", null, "user"), h("div.text.plain", null, prompt)), answer.element);
    const turn = { role: "user", content: prompt };
    this.#control = new AbortController();
    const leave = () => this.#control?.abort();
    signal.addEventListener("abort", leave);
    this.stop.hidden = false;
    try {
      const messages = [...before, ...this.#turns, turn];
      const request = { model: this.model, messages, ...sampling, logprobs: true, reference: isTuned };
      const reason = await chat(request, (part) => answer.take(part), this.#control.signal);
      answer.end(reason);
      this.#turns.push(turn, { role: "assistant", content: answer.text });
    } catch (error) {
      if (error.name === "AbortError") answer.end("stopped");
      else fill(answer.foot, errorBox(error));
    } finally {
      signal.removeEventListener("abort", leave);
      this.#control = null;
      this.stop.hidden = true;
    }
  }
}

class AnswerView {
  constructor() {
    this.text = "";
    this.tokens = [];
    this.body = h("div.text.policy", { "aria-live": "polite" });
    this.foot = h("div.hint");
    this.element = h("div", null, h("span.role", null, "assistant"), this.body, this.foot);
    this.reference = null;
    fill(this.foot, h("span.spinner", { "aria-hidden": "true" }), " waiting for the model …");
  }

  take({ text, tokens, reference }) {
    if (tokens) this.tokens.push(...tokens);
    if (reference) this.reference = reference;
    if (!text) return;
    this.text += text;
    fill(this.body, this.text);
    fill(this.foot, `${this.tokens.length} tokens`);
  }

  end(reason) {
    const logprob = this.tokens.reduce((sum, token) => sum + token.logprob, 0);
    const facts = [`${this.tokens.length} tokens`, `log-probability ${logprob.toFixed(2)}`];
    if (reason === "length") facts.push("cut off at the most tokens");
    if (reason === "stopped") facts.push("stopped");
    if (this.reference) {
      if (this.reference.reward !== null) facts.push(`implicit reward ${signed(this.reference.reward)}`);
      facts.push(`log-ratio ${signed(this.reference.log_ratio)}`);
      fill(this.body, this.#coloured());
    }
    fill(this.foot, facts.join(" · "));
  }

  /** Tokens by how much likelier the policy finds them than its reference. */
  #coloured() {
    return this.tokens.map(({ text, logprob }, place) => {
      const ratio = logprob - this.reference.logprobs[place];
      const strength = STRENGTHS.filter((bound) => Math.abs(ratio) >= bound).length;
      const kind = strength ? `is-${ratio > 0 ? "likelier" : "rarer"}-${strength}` : "";
      return h("span", { class: kind, title: `${signed(ratio)} nats` }, text);
    });
  }
}
