// Implicit rewards of any responses under a job's policy.

import { get, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { metric, percent, signed } from "../format.js";
import { openJobPage } from "../job/tabs.js";
import { act, card, empty, errorBox, facts, loading } from "../parts.js";

const WAIT_SECONDS = 20;
const MAX_ROUNDS = 30;

export async function open(main, context) {
  const job = await openJobPage(main, context, "/scores");
  if (!job.artifact) {
    main.append(empty("Nothing to score with yet", "Scores need the policy that the job publishes when it ends."));
    return;
  }
  const { signal } = context;
  const area = (id, label, hint) => {
    const control = h("textarea", { id, rows: "3", required: true });
    return [control, h("div.field", null, h("label", { for: id }, label), control, hint ? h("span.hint", null, hint) : null)];
  };
  const [prompt, promptField] = area("score-prompt", "Prompt");
  const [first, firstField] = area("score-first", "Response");
  const [second, secondField] = area("score-second", "Another response", "Optional: the one that should lose.");
  second.required = false;
  const button = h("button.primary", { type: "submit" }, "Score");
  const outcome = h("div", { "aria-live": "polite" });
  const submit = (event) => {
    event.preventDefault();
    act(button, async () => {
      fill(outcome, loading("scores"));
      try {
        fill(outcome, resultView(await score(job.id, prompt.value, first.value, second.value, signal)));
      } catch (error) {
        fill(outcome, errorBox(error));
      }
    });
  };
  main.append(
    h(
      "div.stack",
      null,
      h("p.hint", null, "The implicit reward: beta times how much likelier the tuned model finds a response than the model before this stage did. It compares responses to one prompt; across prompts it means little."),
      h("form.card", { onsubmit: submit, "aria-label": "Score responses" }, promptField, h("div.two", null, firstField, secondField), h("div.actions", null, button)),
      outcome,
    ),
  );
}

async function score(jobId, prompt, first, second, signal) {
  const address = path("jobs", jobId, "scores");
  const body = second
    ? { pairs: [{ prompt, chosen: first, rejected: second }] }
    : { items: [{ prompt, response: first }] };
  let answer = await post(`${address}?wait=${WAIT_SECONDS}`, body, { creates: true, signal });
  for (let round = 0; round < MAX_ROUNDS && ["queued", "running"].includes(answer.status); round += 1)
    answer = await get(`${address}/${answer.id}`, { query: { wait: WAIT_SECONDS }, signal });
  if (answer.status === "succeeded") return answer.results[0];
  throw Object.assign(new Error(answer.error ?? "No worker has answered; one must be running."), { title: "Not scored" });
}

function resultView(result) {
  if (result.error) return errorBox(Object.assign(new Error(result.error), { title: "Not scored" }));
  const pairs =
    "margin" in result
      ? [
          ["First response", signed(result.chosen_reward)],
          ["Another response", signed(result.rejected_reward)],
          ["Margin", signed(result.margin)],
          ["The policy prefers the first with", percent(result.preference_probability)],
        ]
      : [
          ["Reward", signed(result.reward)],
          ["Log-probability, tuned model", metric(result.policy_logp)],
          ["Log-probability before", metric(result.reference_logp)],
          ["Tokens", String(result.num_tokens)],
        ];
  return card("Scores", facts(pairs));
}
