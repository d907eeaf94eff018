// One sweep, live: its members with their settings and held-out figures, the best of them, and what can be done to all.

import { get, path, post } from "../api.js";
import { fill, h, Region } from "../dom.js";
import { pageTitle, steering } from "../entity.js";
import { pathName } from "../form/layout.js";
import { pathsOf } from "../form/sweep_preview.js";
import { count, plural, setting } from "../format.js";
import { poll } from "../live.js";
import { badge, card, loading, MAX_COMPARED, notice, table, tableRow } from "../parts.js";
import { extensionForm } from "../sweep/extension.js";
import { badgeKind, metricName, valueText } from "../sweep/words.js";

const POLL_MS = 3000;
const ENDED = new Set(["finished", "cancelled"]);

export async function open(main, { parameters, signal, setTitle, fail }) {
  main.append(loading("sweep"));
  const address = path("sweeps", parameters[0]);
  const page = new SweepPage(await get(address, { signal }), address, setTitle);
  fill(main, page.element);
  poll(signal, POLL_MS, async () => page.take(await get(address, { signal }))).catch(fail);
}

class SweepPage {
  #order = "position";

  constructor(sweep, address, setTitle) {
    this.address = address;
    this.steering = steering("sweep", address, "sweeps", (now) => this.take(now));
    this.setTitle = setTitle;
    this.title = new Region("div", null, titleView);
    this.actions = new Region("div", { class: "actions" }, () => this.#actions());
    this.best = new Region("div", null, bestView);
    this.members = new Region("div", null, membersTable);
    this.order = h(
      "select",
      { "aria-label": "Order of the jobs", onchange: () => this.#reorder() },
      h("option", { value: "position" }, "As asked for"),
      h("option", { value: "best" }, "Best first"),
    );
    this.extension = h("div");
    this.element = h(
      "div.stack",
      null,
      h("div.title-row", null, this.title.element, this.actions.element),
      this.best.element,
      card("Jobs", h("div.tools", null, this.order), this.members.element),
      this.extension,
    );
    this.take(sweep);
  }

  /** Show the sweep as it is now. */
  take(sweep) {
    const { id, name, status, counts, metric } = sweep;
    this.sweep = sweep;
    this.setTitle(name ?? id);
    this.title.show({ id, name, status, counts, created: sweep.created_at });
    this.actions.show({ status, number: sweep.num_members, best: this.#ranked().map((member) => member.job_id) });
    this.best.show({ member: sweep.members.find((member) => member.job_id === sweep.best_job_id) ?? null, metric, isOver: ENDED.has(status), number: this.#ranked().filter(({ value }) => value === this.#ranked()[0].value).length });
    this.members.show({ members: this.#order === "best" ? [...this.#ranked(), ...this.#unranked()] : sweep.members, metric, best: sweep.best_job_id });
    if (status === "cancelled") fill(this.extension);
    else if (!this.extension.firstChild) fill(this.extension, extensionForm(pathsOf(sweep.members.map(({ overrides }) => overrides)), (members) => this.#extend(members)));
  }

  /** Members with a value, the best first; of losses that is the lowest. */
  #ranked() {
    const { members, metric } = this.sweep;
    const sign = metric === "loss" ? 1 : -1;
    return members.filter(({ value }) => value !== null).sort((one, other) => sign * (one.value - other.value) || one.position - other.position);
  }

  #unranked() {
    return this.sweep.members.filter(({ value }) => value === null);
  }

  #reorder() {
    this.#order = this.order.value;
    this.take(this.sweep);
  }

  async #extend(members) {
    this.take(await post(`${this.address}/extend`, { members }));
  }

  #actions() {
    const { status } = this.sweep;
    const { button, cancel, erase } = this.steering;
    const best = this.#ranked().slice(0, MAX_COMPARED);
    return [
      status === "running" ? button("Pause", "pause", "pause") : null,
      status === "paused" ? button("Resume", "play", "resume") : null,
      ENDED.has(status) ? null : cancel("All jobs that have not ended are cancelled; those that have keep their models."),
      best.length > 1
        ? h("a.button", { href: `#/compare?jobs=${best.map(({ job_id: id }) => id).join(",")}` }, best.length < this.sweep.num_members ? `Compare the best ${best.length}` : `Compare all ${best.length}`)
        : null,
      best.length ? h("a.button", { href: `#/comparison?sweep=${this.sweep.id}` }, "Accuracy and divergence") : null,
      h("a.button", { href: `#/new?sweep=${this.sweep.id}` }, "New sweep like this"),
      ENDED.has(status) ? erase("The sweep's record is deleted; its jobs and their models stay.") : null,
    ];
  }
}

function titleView({ counts, ...sweep }) {
  const parts = Object.entries(counts).map(([word, number]) => `${number} ${word}`);
  return pageTitle(sweep, badgeKind(sweep.status), ` · ${parts.join(", ")}`);
}

function bestView({ member, metric, isOver, number }) {
  if (!member)
    return notice("info", isOver ? "No job has a held-out figure, so none is named the best." : `The best job is named once one has ended. It is chosen by: ${metricName(metric)}.`);
  const settings = Object.entries(member.overrides).map(([name, value]) => `${pathName(`/${name}`)} ${setting(value)}`);
  return notice(
    "check",
    h("strong", null, `${isOver ? "Best" : "Best so far"}: ${settings.join(", ")}`),
    h("p", null, `${metricName(metric)}: ${valueText(metric, member.value)}. `, h("a", { href: `#${path("jobs", member.job_id)}` }, "Open its job"), " to see the interval of that figure."),
    number > 1 ? h("p", null, `${number} jobs have this figure; the first of them is named.`) : null,
  );
}

function membersTable({ members, metric, best }) {
  const paths = pathsOf(members.map(({ overrides }) => overrides));
  const row = (member) => {
    const { overrides } = member;
    const isBest = member.job_id === best;
    const made = tableRow(
      [hasJob(member) ? h("a", { href: `#${path("jobs", member.job_id)}` }, `Job ${member.position}`) : `Job ${member.position}`, " ", badge(member.status, badgeKind(member.status)), member.error ? h("div.error-text", null, member.error) : null, member.is_dropped ? h("div.hint", null, "the sweep goes on without it") : null],
      ...paths.map((name) => (name in overrides ? setting(overrides[name]) : "–")),
      isBest ? h("strong", null, valueText(metric, member.value), " (best)") : figureOf(member, metric),
    );
    if (isBest) made.classList.add("differs");
    return made;
  };
  const heads = [plural(members.length, "job"), ...paths.map((name) => pathName(`/${name}`)), metricName(metric)];
  return table(heads, members.map(row));
}

/** The figure of the model, else that of the last rung at which the sweep has compared the job. */
function figureOf({ value, rungs }, metric) {
  const last = rungs.findLast((rung) => rung.value !== null);
  return value === null && last ? [valueText(metric, last.value), h("div.hint", null, `at step ${count(last.step)}`)] : valueText(metric, value);
}

function hasJob({ status }) {
  return !["waiting", "refused", "deleted"].includes(status);
}
