// The API reference: search, and a form for each operation that sends the request. The page reads without it, too.
import { fill, h } from "./ui/dom.js";

const ROOT = new URL(".", document.baseURI).pathname.replace(/\/$/, "");
const MAX_SHOWN_CHARS = 100_000;
const SHOWN_HEADERS = ["content-type", "location", "etag", "retry-after", "x-request-id"];

const articles = [...document.querySelectorAll("article, tr[id]")].map((element) => ({
  element,
  text: `${element.id} ${element.textContent}`.toLowerCase(),
}));
const links = new Map([...document.querySelectorAll("nav a[href^='#']")].map((a) => [a.hash.slice(1), a.parentElement]));
const search = document.getElementById("search");
const found = document.getElementById("found");
const key = document.getElementById("key");
let description;

document.getElementById("tools").hidden = false;
search.addEventListener("input", show);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  search.focus();
});
for (const button of document.querySelectorAll("button.try")) {
  button.hidden = false;
  button.addEventListener("click", () => open(button), { once: true });
}

/** Show only what holds every word that is searched for. */
function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let number = 0;
  for (const { element, text } of articles) {
    element.hidden = !words.every((word) => text.includes(word));
    number += !element.hidden;
    const link = links.get(element.id);
    if (link) link.hidden = element.hidden;
  }
  for (const section of document.querySelectorAll("main section, nav li.group")) {
    section.hidden = !section.querySelector("article:not([hidden]), tr[id]:not([hidden]), li:not([hidden])");
  }
  found.textContent = words.length ? `${number} found` : "";
}

async function describe() {
  description ??= fetch(`${ROOT}/openapi.json`).then((response) => response.json());
  return description;
}

async function open(button) {
  const document_ = await describe();
  const { method, path } = button.dataset;
  const form = tryForm(document_, method, path, document_.paths[path][method]);
  button.replaceWith(form);
  form.querySelector("input, select, textarea, button").focus();
}

/** A form with every parameter and the body of an operation; sends it and shows the answer. */
function tryForm(document_, method, path, operation) {
  const fields = (operation.parameters ?? []).map((parameter) => ({ ...parameter, ...inputOf(document_, parameter) }));
  const body = operation.requestBody ? bodyOf(document_, operation.requestBody) : null;
  const answer = h("div.answer", { role: "status" });
  const send = h("button.primary", { type: "submit" }, `Send ${method.toUpperCase()}`);
  const stop = h("button", { type: "button", hidden: true }, "Stop");
  const form = h("form.tried", { "aria-label": `Try ${operation.operationId}` });
  form.append(...fields.map(({ label }) => label), ...(body?.elements ?? []), h("p", null, send, " ", stop), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const controller = new AbortController();
    stop.onclick = () => controller.abort();
    send.disabled = true;
    stop.hidden = false;
    await ask(requestOf(method, path, fields, body), controller.signal, answer);
    send.disabled = false;
    stop.hidden = true;
  });
  return form;
}

function resolve(document_, schema) {
  return schema.$ref ? { ...document_.components.schemas[schema.$ref.split("/").pop()], ...schema } : schema;
}

function inputOf(document_, { name, in: place, required, schema, description: about }) {
  const whole = resolve(document_, schema);
  const choices = whole.type === "boolean" ? ["true", "false"] : whole.enum;
  const control = choices
    ? h("select", { name }, required ? [] : h("option", { value: "" }, ""), choices.map((value) => h("option", { value }, value)))
    : h("input", { name, required, type: "text", autocomplete: "off", spellcheck: "false" });
  if (whole.type === "string" && whole.format === "binary") control.type = "file";
  if (whole.default !== undefined && !choices) control.placeholder = `${whole.default}`;
  control.title = about ?? "";
  const label = h("label", null, h("span", null, h("code", null, name), place ? ` ${place}` : "", required ? " required" : ""), control);
  return { control, label };
}

function bodyOf(document_, requestBody) {
  const [[mediaType, media]] = Object.entries(requestBody.content);
  const schema = resolve(document_, media.schema);
  if (mediaType === "application/json") {
    const text = h("textarea", { rows: 8, spellcheck: "false" }, JSON.stringify(media.example ?? {}, null, 2));
    return { elements: [h("label", null, "Body, JSON", text)], headers: { "Content-Type": mediaType }, content: () => text.value };
  }
  if (mediaType === "multipart/form-data") {
    const required = new Set(schema.required);
    const parts = Object.entries(schema.properties).map(([name, inner]) => ({
      name,
      ...inputOf(document_, { name, schema: inner, required: required.has(name), description: inner.description }),
    }));
    return { elements: parts.map(({ label }) => label), headers: {}, content: () => formOf(parts) };
  }
  const file = h("input", { type: "file", required: requestBody.required });
  return { elements: [h("label", null, "Body", file)], headers: { "Content-Type": mediaType }, content: () => file.files[0] };
}

function formOf(parts) {
  const form = new FormData();
  for (const { name, control } of parts) {
    if (control.type === "file") form.append(name, control.files[0]);
    else if (control.value !== "") form.append(name, control.value);
  }
  return form;
}

function requestOf(method, path, fields, body) {
  const query = new URLSearchParams();
  const headers = { ...body?.headers };
  let address = path;
  for (const { name, in: place, control, schema } of fields) {
    const { value } = control;
    if (place === "path") address = address.replace(`{${name}}`, value.split("/").map(encodeURIComponent).join("/"));
    else if (value === "") continue;
    else if (place === "header") headers[name] = value;
    else if (schema.type === "array") for (const one of value.split(",")) query.append(name, one.trim());
    else query.set(name, value);
  }
  if (key.value) headers.Authorization = `Bearer ${key.value.trim()}`;
  const text = query.size ? `?${query}` : "";
  return { url: ROOT + address + text, method: method.toUpperCase(), headers, body: body?.content() };
}

async function ask({ url, ...options }, signal, answer) {
  fill(answer, h("p", null, h("code", null, `${options.method} ${url}`)), "Waiting for the answer …");
  const line = answer.firstElementChild;
  try {
    const response = await fetch(url, { ...options, signal, credentials: "same-origin", cache: "no-store" });
    const headers = SHOWN_HEADERS.filter((name) => response.headers.has(name)).map((name) => `${name}: ${response.headers.get(name)}`);
    const shown = h("pre", { tabindex: 0 });
    fill(answer, line, h("p", null, h("b", null, `${response.status} ${response.statusText}`)), h("pre", { tabindex: 0 }, headers.join("\n")), shown);
    await showBody(response, shown);
  } catch (error) {
    answer.append(h("p", null, error.name === "AbortError" ? "Stopped." : `No answer: ${error.message}`));
  }
}

async function showBody(response, shown) {
  const type = response.headers.get("content-type") ?? "";
  if (type.includes("json")) shown.textContent = cut(JSON.stringify(await response.json(), null, 2));
  else if (type.startsWith("text/event-stream")) await showStream(response, shown);
  else if (type.startsWith("text/")) shown.textContent = cut(await response.text());
  else if (response.status !== 204) {
    const blob = await response.blob();
    const named = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "");
    const link = h("a", { href: URL.createObjectURL(blob), download: named?.[1] ?? "answer" }, `Save ${blob.size.toLocaleString()} bytes`);
    shown.replaceWith(h("p", null, link));
  }
}

async function showStream(response, shown) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    shown.textContent = (shown.textContent + value).slice(-MAX_SHOWN_CHARS);
  }
}

function cut(text) {
  return text.length > MAX_SHOWN_CHARS ? `${text.slice(0, MAX_SHOWN_CHARS)}\n… cut here: ${text.length.toLocaleString()} characters` : text;
}
