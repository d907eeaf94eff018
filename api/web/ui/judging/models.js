// Names of models as people know them: a job's name in place of its id, a checkpoint's step.

import { get, path } from "../api.js";
import { h } from "../dom.js";

const MAX_JOBS = 12;
const STAGES = { sft: "SFT", dpo: "DPO", reward: "reward" };

/** What a job started from, its SFT policy, and what it published. */
export function modelsOf(job) {
  const { base_model: base, method, sft } = job.spec;
  if (method === "reward") return [base]; // it answers nothing
  const hasSft = method !== "supervised" && sft !== "skip";
  return [base, ...(hasSft ? [`${job.id}@sft`] : []), job.id];
}

/** The job that a policy's name means; null of base models and of names that only a file knows. */
export function jobOf(name) {
  const found = /^(job_[0-9a-z]+)(?:@|$)/.exec(name);
  if (found) return found[1];
  const client = /^ft:(?:[^:]*:){3}([0-9a-z]+)(?::ckpt-step-\d+)?$/.exec(name);
  return client ? `job_${client[1]}` : null;
}

/** Labels of models: what is known of their jobs is asked for; what cannot be found keeps its name. */
export class ModelLabels {
  #jobs = new Map();
  #steps = new Map();

  constructor(signal) {
    this.signal = signal;
  }

  /** Ask for the jobs of these names, and for the steps of their checkpoints. Resolves when labels are known. */
  async learn(names) {
    const jobs = [...new Set(names.map(jobOf))].filter((id) => id && !this.#jobs.has(id)).slice(0, MAX_JOBS);
    const hasCheckpoint = (id) => names.some((name) => name.startsWith(`${id}@`) && !name.endsWith("@sft"));
    await Promise.all(jobs.map((id) => this.#learn(id, hasCheckpoint(id))));
    return this;
  }

  async #learn(id, hasCheckpoint) {
    // A search, since a job may be deleted, and an address that is not there would be an error in the console.
    const { data } = await get("/jobs", { query: { search: id, limit: 1 }, signal: this.signal });
    const [job] = data;
    this.#jobs.set(id, job?.name ?? id);
    if (!job || !hasCheckpoint) return;
    const found = await get(path("jobs", id, "checkpoints"), { signal: this.signal });
    for (const { id: checkpoint, stage, step } of found.data) this.#steps.set(checkpoint, `${STAGES[stage]} step ${step}`);
  }

  of(name) {
    const id = jobOf(name);
    if (id === null) return name;
    const title = this.#jobs.get(id) ?? id;
    const client = /:ckpt-step-(\d+)$/.exec(name);
    if (client) return `${title}, step ${client[1]}`;
    const [, point] = name.split("@");
    if (name.startsWith("ft:") || !point) return title;
    return point === "sft" ? `${title}, SFT` : `${title}, ${this.#steps.get(point) ?? point}`;
  }

  /** The label, leading to the job where it is one's. */
  link(name) {
    const id = jobOf(name);
    return id ? h("a", { href: `#${path("jobs", id)}`, title: name }, this.of(name)) : this.of(name);
  }
}
