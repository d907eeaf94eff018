// The shell: which page the address names, signing in, and word of a lost connection.

import { get, post, Problem, remove, Unreachable } from "./api.js";
import { fill, h } from "./dom.js";
import { health } from "./live.js";
import { empty, errorBox } from "./parts.js";

// Each page is loaded when it is first opened: open(main, context) builds it and returns when it is there; it ends with
// context.signal.
const ROUTES = [
  [/^\/jobs$/, () => import("./pages/jobs.js"), "Jobs"],
  [/^\/jobs\/([^/]+)$/, () => import("./pages/job.js"), "Job"],
  [/^\/jobs\/([^/]+)\/pairs$/, () => import("./pages/pairs.js"), "Pairs"],
  [/^\/jobs\/([^/]+)\/scores$/, () => import("./pages/scores.js"), "Scores"],
  [/^\/jobs\/([^/]+)\/log$/, () => import("./pages/job_log.js"), "Log"],
  [/^\/rounds$/, () => import("./pages/all_rounds.js"), "Rounds"],
  [/^\/rounds\/new$/, () => import("./pages/new_rounds.js"), "New rounds"],
  [/^\/rounds\/([^/]+)$/, () => import("./pages/rounds.js"), "Rounds"],
  [/^\/sweeps$/, () => import("./pages/sweeps.js"), "Sweeps"],
  [/^\/sweeps\/([^/]+)$/, () => import("./pages/sweep.js"), "Sweep"],
  [/^\/judgements$/, () => import("./pages/judgements.js"), "Judgements"],
  [/^\/judgements\/new$/, () => import("./pages/new_judgement.js"), "New judgement"],
  [/^\/judgements\/([^/]+)$/, () => import("./pages/judgement.js"), "Judgement"],
  [/^\/generations$/, () => import("./pages/generations.js"), "Generations"],
  [/^\/generations\/new$/, () => import("./pages/new_generation.js"), "New generation"],
  [/^\/generations\/([^/]+)$/, () => import("./pages/generation.js"), "Generation"],
  [/^\/datasets$/, () => import("./pages/datasets.js"), "Datasets"],
  [/^\/datasets\/([^/]+)$/, () => import("./pages/dataset.js"), "Dataset"],
  [/^\/diff$/, () => import("./pages/diff.js"), "What differs"],
  [/^\/feedback$/, () => import("./pages/feedback.js"), "Feedback"],
  [/^\/arena$/, () => import("./pages/arenas.js"), "Arena"],
  [/^\/arena\/([^/]+)$/, () => import("./pages/arena.js"), "Arena"],
  [/^\/new$/, () => import("./pages/new_job.js"), "New job"],
  [/^\/play$/, () => import("./pages/play.js"), "Playground"],
  [/^\/compare$/, () => import("./pages/compare.js"), "Compare"],
  [/^\/comparison$/, () => import("./pages/comparison.js"), "Accuracy and divergence"],
  [/^\/keys$/, () => import("./pages/keys.js"), "Keys"],
  [/^\/workers$/, () => import("./pages/workers.js"), "Workers"],
  [/^\/words$/, () => import("./pages/words.js"), "Words"],
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
  delete main.dataset.page;
  const { signal } = current;
  const [where, query = ""] = (location.hash || HOME).slice(1).split("?");
  const found = ROUTES.map(([pattern, load, title]) => ({ match: pattern.exec(where), load, title })).find(
    ({ match }) => match,
  );
  if (!found) {
    fill(main, h("h1", { tabindex: "-1" }, "Not found"), empty("No such page", `There is no page ${where}.`, h("a.button", { href: HOME }, "All jobs")));
    setTitle("Not found");
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
    const page = await loaded(found.load);
    if (signal.aborted) return;
    await page.open(fill(main), context);
    if (!signal.aborted) main.dataset.page = where;
  } catch (error) {
    fail(error, signal);
  }
  if (hasOpened && !signal.aborted) (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  if (hasOpened) scrollTo(0, 0);
  hasOpened = true;
}

async function loaded(load) {
  try {
    return await load();
  } catch (error) {
    throw error instanceof TypeError ? new Unreachable() : error;
  }
}

async function fail(error, signal) {
  if (signal.aborted || error.name === "AbortError") return;
  if (error instanceof Problem && error.status === 401) {
    current.abort();
    current = new AbortController();
    const signIn = await import("./pages/sign_in.js");
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
    const pages = link.dataset.pages?.split(" ") ?? [link.getAttribute("href").slice(1)];
    const isHere = pages.some((page) => where.startsWith(page));
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

/** What only some may see; the page need not wait for it. */
async function showSession() {
  try {
    const session = await get("/ui/session");
    signOut.hidden = !(session.needs_key && session.is_signed_in);
    for (const name of ["nav-keys", "nav-workers"]) {
      document.getElementById(name).hidden = !MANAGERS.includes(session.scope);
    }
  } catch (error) {
    health.onTrouble(error);
  }
}

async function start() {
  const trouble = await redeemCode().then(() => null, (error) => error);
  await Promise.all([showSession(), open()]);
  if (trouble) health.onTrouble(trouble);
}

await start();
