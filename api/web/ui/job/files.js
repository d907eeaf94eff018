// What a job leaves behind: the policy's files and the checkpoints, to download.

import { get, path, Problem } from "../api.js";
import { fill, h, icon } from "../dom.js";
import { bytes, metric, plural } from "../format.js";
import { card, copyable, table, tableRow } from "../parts.js";
import { exportsView } from "./exports.js";

export class FilesCard {
  #artifact = null;
  #shown = "";
  /** Whether a kept checkpoint has a policy. */
  hasPolicies = false;

  constructor(jobId, signal) {
    this.jobId = jobId;
    this.signal = signal;
    this.body = h("div.stack");
    this.element = card("Files", this.body);
    this.element.hidden = true;
  }

  /** The summary of the artifact in the job; null while there is none. */
  note(artifact) {
    this.#artifact = artifact;
  }

  async refresh() {
    const [artifact, checkpoints] = await Promise.all([this.#readArtifact(), this.#read("checkpoints")]);
    const text = JSON.stringify([artifact, checkpoints]);
    if (text === this.#shown) return;
    this.#shown = text;
    const kept = checkpoints?.data ?? [];
    this.element.hidden = !artifact && kept.length === 0;
    this.hasPolicies = kept.some(({ archive_url: url }) => url);
    this.exports ??= artifact ? exportsView(this.jobId, this.signal) : null;
    fill(this.body, artifact ? policyView(artifact) : null, this.exports, kept.length ? checkpointsView(kept) : null);
  }

  async #readArtifact() {
    return this.#artifact ? this.#read("artifact") : null;
  }

  async #read(name) {
    try {
      return await get(path("jobs", this.jobId, name), { signal: this.signal });
    } catch (error) {
      if (error instanceof Problem && error.status === 404) return null;
      throw error;
    }
  }
}

function policyView({ files, archive_url: archive }) {
  const total = files.reduce((sum, file) => sum + file.num_bytes, 0);
  return h(
    "div.stack",
    null,
    h(
      "div.actions",
      null,
      h("a.button.primary", { href: archive, download: true }, icon("download"), "Download the policy"),
      h(
        "span.hint",
        null,
        `${plural(files.length, "file")}, ${bytes(total)}, as one tar. The folder loads with AutoModelForCausalLM.from_pretrained.`,
      ),
    ),
    h(
      "details",
      null,
      h("summary", null, "Single files"),
      table(
        ["File", "Size", "SHA-256"],
        files.map((file) =>
          tableRow(
            h("a", { href: file.url, download: true }, file.path),
            bytes(file.num_bytes),
            copyable(file.sha256, `${file.sha256.slice(0, 12)}…`),
          ),
        ),
      ),
    ),
  );
}

function checkpointsView(checkpoints) {
  return h(
    "details",
    null,
    h("summary", null, plural(checkpoints.length, "checkpoint")),
    table(
      ["Stage", "Step", "Size", "Validation loss", ""],
      checkpoints.map((item) =>
        tableRow(
          [item.stage, item.is_best ? " (best)" : ""],
          String(item.step),
          bytes(item.num_bytes),
          metric(item.metrics.loss),
          item.archive_url ? h("a", { href: item.archive_url, download: true }, "Download") : null,
        ),
      ),
    ),
  );
}
