// All jobs, live: searched, filtered and sorted by the service; several at a time compared, cancelled or deleted.

import { get, path, post, remove, withQuery } from "../api.js";
import { fill, h, KeyedRows } from "../dom.js";
import { makeHeads, makeRow } from "../job/row.js";
import { poll } from "../live.js";
import { act, ask, empty, loading, MAX_COMPARED, notice } from "../parts.js";

const STATUSES = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];
const FILTERS = ["status", "search", "tag", "variant", "base_model", "dataset_id", "sort"];
const SORTS = [
  ["-created", "Newest first"],
  ["created", "Oldest first"],
  ["-finished", "Last finished first"],
  ["name", "Name"],
  ["-accuracy", "Held-out accuracy, best first"],
  ["-margin", "Held-out margin, largest first"],
  ["loss", "Held-out loss, lowest first"],
];
const POLL_MS = 2000;
const TYPING_MS = 250;
const PAGE = 20;

export async function open(main, { query, signal, fail }) {
  const list = new JobList(query, signal);
  fill(main, list.element);
  await list.refresh();
  poll(signal, POLL_MS, () => list.refresh()).catch(fail);
}

class JobList {
  #chosen = new Set();
  #newest = [];
  #older = [];
  #cursor = undefined;
  #round = 0;

  constructor(query, signal) {
    this.signal = signal;
    this.where = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
    this.body = h("tbody");
    this.rows = new KeyedRows(this.body, ({ id }) => id, (job) => makeRow(job, (id, isOn) => this.#choose([id], isOn)));
    this.all = h("input", {
      type: "checkbox",
      "aria-label": "Choose all shown jobs",
      onchange: () => this.#choose(this.#shown().map(({ id }) => id), this.all.checked),
    });
    this.table = h("div.table-holder", null, h("table.jobs", null, this.#head(), this.body));
    this.content = h("div", null, loading("jobs"));
    this.more = h("div.more");
    this.bulk = h("div.actions", { role: "group", "aria-label": "Chosen jobs" });
    this.outcome = h("div", { role: "status" });
    this.filters = h("nav.filters", { "aria-label": "Filter by status" });
    this.element = h(
      "div",
      null,
      h("div.title-row", null, h("h1", { tabindex: "-1" }, "Jobs"), this.bulk),
      this.filters,
      this.#tools(),
      this.outcome,
      this.content,
    );
    this.#showFilters();
    this.#showBulk();
  }

  /** The newest page again; older pages stay as they were read. */
  async refresh() {
    const round = this.#round;
    const page = await get("/jobs", { query: { ...this.where, limit: PAGE }, signal: this.signal });
    if (round !== this.#round) return;
    this.#newest = page.data;
    if (this.#cursor === undefined) this.#cursor = page.next_cursor;
    this.#show();
  }

  #head() {
    const heads = makeHeads().map((name) => h("th", { scope: "col" }, name));
    return h("thead", null, h("tr", null, h("th.pick", null, this.all), heads));
  }

  #tools() {
    const search = h("input", {
      type: "search",
      id: "search",
      value: this.where.search,
      placeholder: "Name, id, tag or note",
      "aria-label": "Search jobs",
      autocomplete: "off",
    });
    let timer = null;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#ask({ search: search.value.trim() }), TYPING_MS);
    });
    const sort = h(
      "select",
      { id: "sort", "aria-label": "Sort jobs" },
      SORTS.map(([value, label]) => h("option", { value }, label)),
    );
    sort.value = SORTS.some(([value]) => value === this.where.sort) ? this.where.sort : "-created";
    sort.addEventListener("change", () => this.#ask({ sort: sort.value }));
    this.narrowed = h("div.tags");
    return h("div.tools", null, search, sort, this.narrowed);
  }

  /** Ask again with other filters; the address follows, so that it can be shared and survives a reload. */
  async #ask(changes) {
    Object.assign(this.where, changes);
    this.#round += 1;
    this.#older = [];
    this.#cursor = undefined;
    history.replaceState(history.state, "", withQuery("#/jobs", this.where));
    this.#showFilters();
    try {
      await this.refresh();
    } catch (error) {
      if (error.name !== "AbortError") fill(this.content, notice("error", error.message));
    }
  }

  #showFilters() {
    const link = (status, label) => {
      const address = withQuery("#/jobs", { ...this.where, status });
      return h("a", { href: address, "aria-current": status === this.where.status ? "true" : null }, label);
    };
    fill(
      this.filters,
      link("", "All"),
      STATUSES.map((name) => link(name, name[0].toUpperCase() + name.slice(1))),
    );
    const narrowing = ["tag", "variant", "base_model", "dataset_id"].filter((name) => this.where[name]);
    fill(
      this.narrowed,
      narrowing.map((name) =>
        h(
          "button.tag",
          { type: "button", title: "Remove this filter", onclick: () => this.#ask({ [name]: "" }) },
          `${name.replace("_id", "").replace("_", " ")}: ${this.where[name]} ✕`,
        ),
      ),
    );
  }

  #shown() {
    const known = new Set(this.#newest.map(({ id }) => id));
    return [...this.#newest, ...this.#older.filter(({ id }) => !known.has(id))];
  }

  #show() {
    const jobs = this.#shown();
    this.rows.show(jobs);
    if (!jobs.length) fill(this.content, this.#nothing());
    else if (!this.table.isConnected) fill(this.content, this.table, this.more);
    fill(this.more, this.#cursor ? this.#moreButton() : null);
    const ids = new Set(jobs.map(({ id }) => id));
    const gone = [...this.#chosen].filter((id) => !ids.has(id));
    if (gone.length) this.#choose(gone, false);
  }

  #moreButton() {
    if (this.more.firstElementChild) return this.more.firstElementChild;
    const button = h("button", { type: "button" }, "Show more jobs");
    button.addEventListener("click", () =>
      act(button, async () => {
        const query = { ...this.where, limit: PAGE, cursor: this.#cursor };
        const page = await get("/jobs", { query, signal: this.signal });
        this.#older.push(...page.data);
        this.#cursor = page.next_cursor;
        this.#show();
      }),
    );
    return button;
  }

  #choose(ids, isOn) {
    for (const id of ids) {
      if (isOn) this.#chosen.add(id);
      else this.#chosen.delete(id);
      this.rows.row(id)?.setChosen(isOn);
    }
    this.#showBulk();
  }

  #showBulk() {
    const number = this.#chosen.size;
    this.all.checked = number > 0 && number === this.#shown().length;
    this.all.indeterminate = number > 0 && !this.all.checked;
    const compare = h("button", { type: "button", disabled: number < 2 || number > MAX_COMPARED }, number ? `Compare ${number}` : "Compare");
    compare.addEventListener("click", () => (location.hash = `#/compare?jobs=${[...this.#chosen].join(",")}`));
    const why = number > MAX_COMPARED ? `At most ${MAX_COMPARED} can be compared.` : number === 1 ? "Choose another to compare." : "";
    fill(
      this.bulk,
      why ? h("span.hint", null, why) : null,
      compare,
      number ? this.#bulkButton(`Cancel ${number}`, "Cancel", (id) => post(`${path("jobs", id)}/cancel`)) : null,
      number ? this.#bulkButton(`Delete ${number}`, "Delete", (id) => remove(path("jobs", id))) : null,
    );
  }

  #bulkButton(label, verb, work) {
    const button = h("button.danger", { type: "button" }, label);
    button.addEventListener("click", async () => {
      const ids = [...this.#chosen];
      const text =
        verb === "Delete"
          ? "Each is deleted with its curves, checkpoints and model. This cannot be undone. Jobs that have not ended stay."
          : "Each ends at its next step. Jobs that have ended already stay as they are.";
      const word = ids.length === 1 ? "this job" : `these ${ids.length} jobs`;
      if (!(await ask(`${verb} ${word}?`, text, [{ value: "yes", label: `${verb} ${ids.length}`, kind: "danger" }]))) return;
      await act(button, () => this.#forEach(ids, verb, work));
    });
    return button;
  }

  /** One after another, and every failure by name. */
  async #forEach(ids, verb, work) {
    const failures = [];
    for (const id of ids) {
      try {
        await work(id);
        this.#choose([id], false);
      } catch (error) {
        const job = this.#shown().find((item) => item.id === id);
        failures.push([job?.name ?? id, error.message]);
      }
    }
    const done = `${verb === "Delete" ? "Deleted" : "Asked to cancel"}: ${ids.length - failures.length} of ${ids.length}.`;
    fill(
      this.outcome,
      notice(
        failures.length ? "warning" : "check",
        h("strong", null, done),
        failures.length ? h("ul", null, failures.map(([name, why]) => h("li", null, `${name}: ${why}`))) : null,
      ),
    );
    this.#older = this.#older.filter(({ id }) => !ids.includes(id));
    this.#cursor = undefined;
    await this.refresh();
  }

  #nothing() {
    const { status, search } = this.where;
    const isNarrowed = FILTERS.some((name) => name !== "sort" && this.where[name]);
    if (isNarrowed)
      return empty(
        status && !search ? `No ${status} jobs` : "No such jobs",
        "Other jobs are under “All”.",
        h("a.button", { href: "#/jobs" }, "Show all"),
      );
    return empty(
      "No jobs yet",
      "Upload a file of preference pairs, then start a job: it trains on the chosen responses first, then learns to prefer them to the rejected ones.",
      h("a.button", { href: "#/datasets" }, "Upload data"),
      h("a.button.primary", { href: "#/new" }, "New job"),
    );
  }
}
