// The shell: which page the address names, signing in, and word of a lost connection.

import { get, post, Problem, remove } from "./api.js";
import { fill } from "./dom.js";
import { health } from "./live.js";
import { errorBox } from "./parts.js";
import * as compare from "./pages/compare.js";
import * as dataset from "./pages/dataset.js";
import * as datasets from "./pages/datasets.js";
import * as job from "./pages/job.js";
import * as jobs from "./pages/jobs.js";
import * as keys from "./pages/keys.js";
import * as newJob from "./pages/new_job.js";
import * as signIn from "./pages/sign_in.js";

// Each page: open(main, context) builds it and returns when it is there; it ends with context.signal.
const ROUTES = [
  [/^\/jobs$/, jobs, "Jobs"],
  [/^\/jobs\/([^/]+)$/, job, "Job"],
  [/^\/datasets$/, datasets, "Datasets"],
  [/^\/datasets\/([^/]+)$/, dataset, "Dataset"],
  [/^\/new$/, newJob, "New job"],
  [/^\/compare$/, compare, "Compare"],
  [/^\/keys$/, keys, "Keys"],
];
const HOME = "#/jobs";
const MANAGERS = ["admin", "operator"];

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const signOut = document.getElementById("sign-out");
let current = new AbortController();
let hasOpened = false;

async function open() {
  if (location.hash && !location.hash.startsWith("#/")) return;
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const [where, query = ""] = (location.hash || HOME).slice(1).split("?");
  const found = ROUTES.map(([pattern, page, title]) => ({ match: pattern.exec(where), page, title })).find(
    ({ match }) => match,
  );
  if (!found) {
    location.replace(HOME);
    return;
  }
  markCurrent(where);
  setTitle(found.title);
  banner.hidden = true;
  const context = {
    parameters: found.match.slice(1).map(decodeURIComponent),
    query: new URLSearchParams(query),
    signal,
    setTitle,
    fail: (error) => fail(error, signal),
  };
  try {
    await found.page.open(fill(main), context);
  } catch (error) {
    fail(error, signal);
  }
  if (hasOpened && !signal.aborted) (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  if (hasOpened) scrollTo(0, 0);
  hasOpened = true;
}

function fail(error, signal) {
  if (signal.aborted || error.name === "AbortError") return;
  if (error instanceof Problem && error.status === 401) {
    current.abort();
    current = new AbortController();
    signIn.open(fill(main), { setTitle, onSignedIn: start });
    signOut.hidden = true;
    return;
  }
  if (!(error instanceof Problem) && !error.title) console.error(error);
  fill(main, errorBox(error, open));
}

function setTitle(title) {
  document.title = `${title} · Preftune`;
}

function markCurrent(where) {
  for (const link of document.querySelectorAll("#nav a")) {
    const isHere = where.startsWith(link.getAttribute("href").slice(1));
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

health.onTrouble = (error) => {
  banner.textContent = error.message;
  banner.hidden = false;
};
health.onFine = () => {
  banner.hidden = true;
};

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
signOut.addEventListener("click", async () => {
  await remove("/ui/session");
  location.hash = HOME;
  await open();
});
addEventListener("hashchange", open);

async function redeemCode() {
  // The link of `preftune open`: its code works once, and does not stay in the address.
  const code = /^#sign-in=(pt_once_[0-9a-f_]+)$/.exec(location.hash)?.[1];
  if (!code) return;
  history.replaceState(null, "", HOME);
  await post("/ui/session", { api_key: code });
}

async function start() {
  try {
    await redeemCode();
    const session = await get("/ui/session");
    signOut.hidden = !(session.needs_key && session.is_signed_in);
    document.getElementById("nav-keys").hidden = !MANAGERS.includes(session.scope);
  } catch (error) {
    health.onTrouble(error);
  }
  await open();
}

await start();
