// The report on every pair: what the policy makes of it, what is remarkable, and the job again without some.

import { get, path, post, ROOT, withQuery } from "../api.js";
import { rowView } from "../data/row_view.js";
import { fill, h } from "../dom.js";
import { metric, signed } from "../format.js";
import { openJobPage } from "../job/tabs.js";
import { act, badge, empty, errorBox, loading, moreButton, notice, table, toast } from "../parts.js";

const PAGE = 50;
const FLAGS = {
  likely_mislabelled: "Likely mislabelled: before it was trained on, its margin was negative and well below its neighbours'.",
  never_learned: "Never learnt: its margin was never positive.",
  already_satisfied: "Satisfied before: it had little to teach.",
  forgotten: "Forgotten: its margin was positive in training and is not any more.",
  truncated: "Longer than the longest row allowed: it was set aside and has no figures.",
};
const HEADS = [
  ["Margin", "Implicit reward of the chosen response minus that of the rejected one, when the pair was last trained on or measured."],
  ["First margin", "The margin before the pair was trained on for the first time."],
  ["Reference margin", "How much likelier the model before this stage found the chosen response than the rejected one, in nats."],
  ["Leave out", "Of the job when it runs again."],
  ["Swap", "Take the rejected response for the chosen one when the job runs again."],
];
const SORTS = [
  ["line", "Line"],
  ["-mislabelled_score", "Most suspicious label first"],
  ["margin", "Smallest margin first"],
  ["-margin", "Largest margin first"],
  ["-gradient_weight", "Least learnt first"],
  ["reference_margin", "Reference margin, smallest first"],
];

export async function open(main, context) {
  const job = await openJobPage(main, context, "/pairs");
  if (!job.artifact) {
    main.append(empty("No report yet", "The report on pairs is published with the policy, when the job ends."));
    return;
  }
  const page = new PairsPage(job, context);
  main.append(page.element);
  await page.ask();
}

class PairsPage {
  #excluded = new Set();
  #swapped = new Set();

  constructor(job, { signal, query }) {
    this.job = job;
    this.signal = signal;
    this.address = path("jobs", job.id, "pairs");
    const select = (id, label, options, value) => {
      const control = h("select", { id, "aria-label": label, onchange: () => this.ask() }, options.map(([name, text]) => h("option", { value: name }, text)));
      control.value = options.some(([name]) => name === value) ? value : options[0][0];
      return control;
    };
    this.flag = select("flag", "Flag", [["", "All pairs"], ...Object.keys(FLAGS).map((name) => [name, words(name)])], query.get("flag"));
    this.split = select("split", "Split", [["", "Training and held out"], ["train", "Training"], ["validation", "Held out"]], query.get("split"));
    this.sort = select("sort", "Order", SORTS, query.get("sort"));
    this.body = h("div");
    this.choice = h("div", { role: "status" });
    this.downloads = h("span.actions");
    this.element = h("div.stack", null, h("div.tools", null, this.flag, this.split, this.sort, this.downloads), this.choice, this.body);
    this.#showChoice();
  }

  async ask() {
    const query = { flag: this.flag.value, split: this.split.value, sort: this.sort.value };
    const rows = h("tbody");
    const more = moreButton(
      (cursor) => get(this.address, { query: { ...query, limit: PAGE, cursor }, signal: this.signal }),
      (pairs) => rows.append(...pairs.flatMap((pair) => this.#row(pair))),
      "Show more pairs",
    );
    fill(this.body, loading("pairs"));
    try {
      await more.start();
      const heads = ["Line", "Flags", ...HEADS.map(([label, title]) => h("span.term", { title }, label)), ""];
      const about = query.flag ? h("p.hint", null, FLAGS[query.flag]) : null;
      fill(this.body, rows.childElementCount ? [about, table(heads, rows), more.element] : empty("No such pairs", "No pair of this job has that flag."));
    } catch (error) {
      if (error.name !== "AbortError") fill(this.body, errorBox(error));
    }
    const link = (format) => h("a.button", { href: ROOT + withQuery(this.address, { ...query, format }), download: true }, format.toUpperCase());
    fill(this.downloads, link("csv"), link("jsonl"));
  }

  #row(pair) {
    const text = h("tr", { hidden: true }, h("td", { colspan: "8" }));
    const show = h("button.small", { type: "button", "aria-expanded": "false", "aria-label": `Text of line ${pair.line}` }, "Text");
    show.addEventListener("click", () => act(show, () => this.#toggleText(pair, text, show)));
    // Lines of a held-out dataset of its own are no lines of the dataset that is trained on.
    const isForeign = pair.split === "validation" && Boolean(this.job.spec.validation_dataset_id);
    const box = (set, other, label) => {
      const control = h("input", { type: "checkbox", disabled: isForeign, "aria-label": `${label} line ${pair.line}`, checked: set.has(pair.line) });
      control.addEventListener("change", () => {
        if (control.checked) set.add(pair.line);
        else set.delete(pair.line);
        if (control.checked && other.delete(pair.line)) control.closest("tr").querySelectorAll("input").forEach((item) => (item.checked = item === control));
        this.#showChoice();
      });
      return h("td", null, control);
    };
    const row = h(
      "tr",
      null,
      [
        String(pair.line),
        [pair.flags.map((flag) => h("span.badge", { title: FLAGS[flag] }, words(flag))), pair.split === "validation" ? badge("held out") : null],
        signed(pair.margin_last),
        signed(pair.margin_first),
        metric(pair.reference_margin),
      ].map((content) => h("td", null, content)),
      box(this.#excluded, this.#swapped, "Leave out"),
      box(this.#swapped, this.#excluded, "Swap"),
      h("td", null, show),
    );
    return [row, text];
  }

  async #toggleText({ line, split }, holder, button) {
    if (!holder.hidden) {
      holder.hidden = true;
      button.setAttribute("aria-expanded", "false");
      return;
    }
    const { dataset_id: trained, validation_dataset_id: held } = this.job.spec;
    const dataset = split === "validation" ? (held ?? trained) : trained;
    const page = await get(path("datasets", dataset, "rows"), { query: { line, limit: 1 }, signal: this.signal });
    const [row] = page.data;
    fill(holder.firstElementChild, row?.line === line ? rowView(row) : "The row is not there any more.");
    holder.hidden = false;
    button.setAttribute("aria-expanded", "true");
  }

  #showChoice() {
    const [out, swapped] = [this.#excluded.size, this.#swapped.size];
    if (!out && !swapped) {
      fill(this.choice, h("p.hint", null, "Tick pairs to leave out or to swap, and run the job again without them."));
      return;
    }
    const button = h("button.primary", { type: "button" }, "Run again with these changes");
    button.addEventListener("click", () =>
      act(button, async () => {
        const body = { exclude_lines: [...this.#excluded], swap_lines: [...this.#swapped] };
        const made = await post(`${path("jobs", this.job.id)}/rerun`, body, { creates: true });
        toast("Queued.");
        location.hash = `#${path("jobs", made.id)}`;
      }),
    );
    fill(this.choice, notice("info", h("strong", null, `${out} left out, ${swapped} swapped`), button));
  }
}

function words(flag) {
  return flag.replaceAll("_", " ");
}
