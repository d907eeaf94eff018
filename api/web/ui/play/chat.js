// One answer of a model, read while it is written.

import { Problem, send } from "../api.js";

/**
 * Ask for an answer; `on` is told {text}, {tokens: [{text, logprob}]} and {reference: {logprobs, log_ratio, reward}} as
 * they come. Returns why it ended. Raises Problem.
 */
export async function chat(request, on, signal) {
  const response = await send("POST", "/v1/chat/completions", {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true }),
    signal,
  });
  let reason = null;
  for await (const event of eventsOf(response)) {
    if (event.error) throw new Problem(response.status, { ...event.error, detail: event.error.message, title: "The answer broke off" });
    const [choice] = event.choices;
    if (!choice) continue;
    if (choice.delta.content) on({ text: choice.delta.content });
    if (choice.logprobs) on({ tokens: choice.logprobs.content.map(({ token, logprob, bytes }) => ({ text: bytes ? token : "", logprob })) });
    if (choice.reference) on({ reference: choice.reference });
    reason = choice.finish_reason ?? reason;
  }
  return reason;
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}
