// A new job, or a sweep of it: what beta and the variants mean, and what the settings will be, before anything is queued.

import { get, listAll, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { estimateCard } from "../form/estimate.js";
import { datasetText, modelText, noData, noModel, withNamed } from "../form/choices.js";
import { beforeTheJob } from "../form/data_warnings.js";
import { variantCard } from "../form/explain.js";
import { JobForm } from "../form/job_form.js";
import { resolvedCard } from "../form/resolved.js";
import { SweepFields } from "../form/sweep_fields.js";
import { sweepPreviewCard } from "../form/sweep_preview.js";
import { plural } from "../format.js";
import { act, card, errorBox, loading, notice, toast } from "../parts.js";

const PREVIEW_MS = 300;
const KEPT_FURTHER = ["lora", "max_length", "chat_template_kwargs", "precision", "validation_dataset_id"];
/** Settings of a job that hold for the next one on its model: all but the data and the length of training. */

export async function open(main, { query, signal }) {
  main.append(loading("the form"));
  const sourceId = query.get("from") ?? query.get("continue");
  const [models, variants, listed, source, sweep] = await Promise.all([
    listAll("/models", { signal }),
    get("/variants", { signal }),
    listAll("/datasets", { signal }),
    sourceId ? get(path("jobs", sourceId), { signal }) : null,
    query.get("sweep") ? get(path("sweeps", query.get("sweep")), { signal }) : null,
  ]);
  const given = history.state?.draft ?? givenBy(query, source, sweep);
  const varied = history.state?.draft ? history.state.sweep : sweep?.requested;
  const datasets = await withNamed(listed, [given.dataset_id, given.validation_dataset_id, given.sft?.dataset_id], signal);
  fill(main, h("div.title-row", null, h("h1", { tabindex: "-1" }, "New job")));
  if (!models.length) main.append(noModel());
  else if (!datasets.length) main.append(noData());
  else main.append(build({ models, variants, datasets, given, varied, source: query.get("continue") ? source : null, signal }));
}


/** The request that the address asks for: a copy of a job or of a sweep's, the next job on its model, or single settings. */
function givenBy(query, source, sweep) {
  const given = query.get("from") ? withoutSweep(source.requested) : {};
  if (sweep) Object.assign(given, sweep.requested.job, sweep.name ? { name: sweep.name } : null);
  if (query.get("continue")) {
    for (const name of KEPT_FURTHER) if (source.requested[name] !== undefined) given[name] = source.requested[name];
    given.base_model = source.id;
    if (source.spec.method === "supervised") given.sft = "skip";
  }
  for (const name of ["dataset_id", "base_model", "variant"]) if (query.get(name)) given[name] = query.get(name);
  for (const name of ["exclude_lines", "swap_lines"])
    if (query.get(name)) given[name] = query.get(name).split(",").map(Number);
  return given;
}

/** A copy of a sweep's member is a job by itself. */
function withoutSweep({ metadata, ...request }) {
  const { sweep: _sweep, ...rest } = metadata ?? {};
  return Object.keys(rest).length ? { ...request, metadata: rest } : request;
}

function describe(dataset, heldOut) {
  const { id, kind } = dataset;
  return { id, kind, text: id === heldOut ? `${datasetText(dataset)} · held out` : datasetText(dataset) };
}

function build({ models, variants, datasets, given, varied, source, signal }) {
  const explanation = h("div.stack");
  const resolved = h("div.stack", { "aria-live": "polite" });
  const submit = h("button.primary", { type: "submit", disabled: true }, "Start the job");
  const trouble = h("div");
  if (datasets.every(({ kind }) => ["demonstration", "responses"].includes(kind))) given.method ??= "supervised";
  const form = new JobForm(
    {
      models: models.map((model) => [model.name, modelText(model)]),
      variants: variants.data,
      datasets: datasets.map((dataset) => describe(dataset, given.validation_dataset_id)),
    },
    given,
  );
  const sweep = new SweepFields(
    {
      "/variant": variants.data.map(({ name }) => [name, name]),
      "/dataset_id": datasets.map(({ id, name }) => [id, name]),
      "/base_model": models.map((model) => [model.name, modelText(model)]),
    },
    () => form.onChange(),
  );
  if (varied && !sweep.take(varied)) form.remarks.push("That sweep lists its jobs one by one, which this form cannot: only what they have in common is taken.");
  let timer = null;
  let asked = new AbortController();
  const preview = async () => {
    asked.abort();
    asked = new AbortController();
    const request = form.request();
    const explained = () => variantCard(form.variant, request.beta ?? form.variant.default_beta, variants.legend);
    fill(explanation, form.isSupervised ? null : explained());
    if (sweep.isOn) submit.disabled = true; // its text says how many; else a click on its way would be lost
    if (!request.dataset_id) {
      submit.disabled = true;
      showFaults(form, sweep, []);
      fill(resolved, card("What the job will do", h("p.muted", null, "Choose a dataset to see it.")));
      return;
    }
    try {
      const until = { signal: AbortSignal.any([asked.signal, signal]) };
      const answer = await post("/jobs/preview", request, until);
      const together = sweep.isOn ? await post("/sweeps/preview", sweep.request(request), until) : null;
      showFaults(form, sweep, []);
      const taken = together ? sweepPreviewCard(together) : estimateCard(answer.estimate);
      fill(resolved, beforeTheJob(answer, request), taken, resolvedCard(answer, request, form.variant));
      fill(submit, together ? `Start ${plural(together.num_members, "job")}` : "Start the job");
      submit.disabled = false;
    } catch (error) {
      if (error.name === "AbortError") return;
      submit.disabled = true;
      showRefusal(showFaults(form, sweep, error.errors ?? []), resolved, error);
    }
  };
  form.onChange = () => {
    const draft = form.request();
    history.replaceState({ draft, sweep: sweep.isOn ? sweep.request(draft) : null }, "");
    clearTimeout(timer);
    timer = setTimeout(preview, PREVIEW_MS);
  };
  const send = (event) => {
    event.preventDefault();
    act(submit, async () => {
      try {
        const request = form.request();
        const [list, body] = sweep.isOn ? ["sweeps", sweep.request(request)] : ["jobs", request];
        const made = await post(`/${list}`, body, { creates: true });
        toast("Queued.");
        location.hash = `#${path(list, made.id)}`;
      } catch (error) {
        showFaults(form, sweep, error.errors ?? []);
        fill(trouble, errorBox(error));
      }
    });
  };
  for (const kind of ["input", "change"]) sweep.element.addEventListener(kind, () => form.onChange());
  preview();
  return h(
    "form.columns",
    { onsubmit: send, novalidate: true },
    h("div.stack", null, source ? furtherNotice(source, datasets) : null, remarks(form), form.element, sweep.element, trouble, submitRow(submit)),
    h("div.stack", null, resolved, explanation),
  );
}

function submitRow(submit) {
  const hint = "Starts as soon as a worker is free. You can pause or cancel it at any time.";
  return h("div.actions", null, submit, h("span.hint", null, hint));
}

function remarks({ remarks: texts }) {
  return texts.length ? notice("warning", texts.map((text) => h("p", null, text))) : null;
}

function furtherNotice(source, datasets) {
  const held = datasets.find(({ id }) => id === source.requested.validation_dataset_id);
  return notice(
    "info",
    h("strong", null, `Continues from the model of “${source.name ?? source.id}”`),
    h("p", null, "Choose the dataset that it learns from next. LoRA and length are set as in that job."),
    held ? h("p", null, `“${held.name}” stays held out.`) : null,
  );
}

/** Marks the fields at fault; returns the faults that no field shows. */
function showFaults(form, sweep, errors) {
  return form.showFaults(sweep.showFaults(errors));
}

function showRefusal(unplaced, resolved, error) {
  const isPlaced = error.errors?.length && !unplaced.length;
  const text = h("p.error-text", null, "Fix the highlighted fields first.");
  fill(resolved, isPlaced ? card("What the job will do", text) : errorBox(error));
}
