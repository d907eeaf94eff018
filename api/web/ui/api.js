// The API, as the dashboard asks it. Every failure is one of two errors, which tell what to do.

/** A problem document (RFC 9457): the service understood and refused. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.error?.message ?? `The service answered ${status}.`);
    this.status = status;
    this.title = body.title ?? "The request failed";
    this.code = body.code ?? body.error?.code ?? "";
    this.errors = body.errors ?? [];
    this.report = body.report ?? null;
    this.requestId = body.request_id ?? body.error?.request_id ?? null;
  }
}

/** No answer: the service is down, restarting, or out of reach. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. It may be restarting, or this machine may be offline; trying again …");
    this.title = "No connection";
  }
}

/** What lies before every address of the API: empty, or the path under which a proxy publishes the service. */
export const ROOT = new URL("..", document.baseURI).pathname.replace(/\/$/, "");

export function path(...parts) {
  return `/${parts.map((part) => encodeURIComponent(part)).join("/")}`;
}

export function withQuery(address, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${address}?${new URLSearchParams(given)}` : address;
}

export async function get(address, { query = {}, signal } = {}) {
  return readJson(await send("GET", withQuery(address, query), { signal }));
}

export async function post(address, body, { signal, creates = false } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (creates) headers["Idempotency-Key"] = randomKey();
  const text = body === undefined ? undefined : JSON.stringify(body);
  return readJson(await send("POST", address, { headers, body: text, signal }));
}

export async function patch(address, body) {
  return readJson(
    await send("PATCH", address, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
  );
}

export async function remove(address) {
  await send("DELETE", address);
}

/** All items of a list that fit in `limit` pages of a hundred. */
export async function listAll(address, { signal, pages = 5, query = {} } = {}) {
  const items = [];
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const answer = await get(address, { query: { ...query, limit: 100, cursor }, signal });
    items.push(...answer.data);
    cursor = answer.next_cursor;
    if (!cursor) break;
  }
  return items;
}

export async function send(method, address, { headers = {}, body, signal } = {}) {
  let response;
  try {
    response = await fetch(ROOT + address, { method, headers, body, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

/** Upload a file as a form, telling how far it is. Returns the dataset. */
export function upload(file, fields, { signal, onProgress }) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    request.addEventListener("load", () => {
      const body = parse(request.responseText);
      if (request.status < 300) resolve(body);
      else reject(new Problem(request.status, body));
    });
    request.addEventListener("error", () => reject(new Unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.open("POST", `${ROOT}/datasets`);
    request.setRequestHeader("Prefer", "respond-async");
    request.setRequestHeader("Idempotency-Key", randomKey());
    request.send(form);
  });
}

export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("-");
}

async function problemOf(response) {
  return new Problem(response.status, parse(await response.text().catch(() => "")));
}

async function readJson(response) {
  if (response.status === 204) return null;
  return response.json();
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
