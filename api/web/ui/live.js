// Keeping a page up to date: polling that rests while nobody looks, and the stream of one job.

import { get, path, Problem, send, Unreachable } from "./api.js";

const MAX_PAUSE_MS = 15000;
const STREAM_PAUSE_MS = 1000;
const MAX_EVENT_CHARS = 8 * 1024 * 1024;

/** Where failures of the background go; set by the shell. */
export const health = { onTrouble: () => {}, onFine: () => {} };

/** Run `work` now and then every `ms`, until it returns false or the signal ends. Rests while the page is hidden. */
export async function poll(signal, ms, work) {
  let pause = ms;
  while (!signal.aborted) {
    try {
      if ((await work()) === false) return;
      health.onFine();
      pause = ms;
    } catch (error) {
      if (signal.aborted) return;
      if (!isPassing(error)) throw error;
      health.onTrouble(error);
      pause = Math.min(MAX_PAUSE_MS, pause * 2);
    }
    await rest(signal, pause);
    await visible(signal);
  }
}

/**
 * A job's points and events as they come: over the stream, or by polling where there is none.
 * `position` is {metricSeq, eventSeq}, from which it goes on; `on` has points, reset, status, event and end.
 */
export async function follow(jobId, position, on, signal) {
  while (!signal.aborted) {
    await visible(signal);
    try {
      const ended = await readStream(jobId, position, on, signal);
      health.onFine();
      if (ended) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === "too-many-streams") return pollJob(jobId, position, on, signal);
      if (!isPassing(error)) throw error;
      health.onTrouble(error);
    }
    await rest(signal, STREAM_PAUSE_MS);
  }
}

async function pollJob(jobId, position, on, signal) {
  await poll(signal, STREAM_PAUSE_MS, async () => {
    const page = await get(path("jobs", jobId, "metrics"), { query: { after: position.metricSeq }, signal });
    if (page.reset) on.reset();
    position.metricSeq = page.last_seq;
    if (page.points.length) on.points(page.points);
    const events = await get(path("jobs", jobId, "events"), { query: { after: position.eventSeq }, signal });
    position.eventSeq = events.last_seq;
    for (const event of events.data) on.event(event);
    on.status();
    const isOver = ["succeeded", "failed", "cancelled"].includes(page.status) && !page.has_more && !events.has_more;
    if (isOver) on.end();
    return !isOver;
  });
}

/** One connection; true when the job has ended. A hidden page hangs up: browsers allow few connections. */
async function readStream(jobId, position, on, signal) {
  const hidden = new AbortController();
  const hangUp = () => document.hidden && hidden.abort();
  document.addEventListener("visibilitychange", hangUp);
  try {
    const headers = { Accept: "text/event-stream", "Last-Event-ID": `${position.metricSeq}.${position.eventSeq}` };
    const response = await send("GET", path("jobs", jobId, "stream"), {
      headers,
      signal: AbortSignal.any([signal, hidden.signal]),
    });
    for await (const message of messages(response.body)) {
      if (message.id) [position.metricSeq, position.eventSeq] = message.id.split(".").map(Number);
      health.onFine();
      if (take(message, on)) return true;
    }
    return false;
  } catch (error) {
    if (hidden.signal.aborted && !signal.aborted) return false;
    if (error instanceof TypeError) throw new Unreachable();
    throw error;
  } finally {
    document.removeEventListener("visibilitychange", hangUp);
  }
}

function take(message, on) {
  const data = message.data ? JSON.parse(message.data) : null;
  if (message.event === "metric") on.points(data);
  else if (message.event === "event") on.event(data);
  else if (message.event === "reset") on.reset();
  else if (message.event === "status") on.status(data);
  else if (message.event === "end") on.end(data);
  return message.event === "end";
}

/** Server-sent events of a body: {id, event, data}. */
async function* messages(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value.replaceAll("\r\n", "\n");
      if (rest.length > MAX_EVENT_CHARS) throw new Unreachable();
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) yield parseBlock(block);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseBlock(block) {
  const message = { id: "", event: "message", data: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const field = line.slice(0, at);
    const value = line.slice(at + 1).replace(/^ /, "");
    if (field === "data") message.data += message.data ? `\n${value}` : value;
    else if (field in message) message[field] = value;
  }
  return message;
}

/** Will it pass by itself? Then the page keeps what it shows and tries again. */
function isPassing(error) {
  return error instanceof Unreachable || (error instanceof Problem && error.status >= 500);
}

function rest(signal, ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

function visible(signal) {
  if (!document.hidden || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}
