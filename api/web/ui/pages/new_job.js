// A new job: what beta and the variants mean, and what the settings will be, before anything is queued.

import { get, listAll, path, post } from "../api.js";
import { beforeTheJob } from "../data_warnings.js";
import { fill, h } from "../dom.js";
import { count, parameters, plural } from "../format.js";
import { BETA_TEXT, variantCard } from "../explain.js";
import { JobForm } from "../job_form.js";
import { act, card, empty, errorBox, loading, toast } from "../parts.js";
import { resolvedCard } from "../resolved.js";

const PREVIEW_MS = 300;

export async function open(main, { query, signal }) {
  main.append(loading("the form"));
  const [models, variants, datasets, source] = await Promise.all([
    listAll("/models", { signal }),
    get("/variants", { signal }),
    listAll("/datasets", { signal }),
    query.get("from") ? get(path("jobs", query.get("from")), { signal }) : null,
  ]);
  fill(main, h("div.title-row", null, h("h1", { tabindex: "-1" }, "New job")));
  const ready = datasets.filter(({ status, kind }) => status === "ready" && kind === "preference");
  if (!models.length) {
    main.append(
      empty(
        "No base model yet",
        "Jobs start from base models that the operator has pulled: run `preftune models pull smollm2-135m-instruct` where the service runs, or put a model's folder into its models directory.",
        h("button", { type: "button", onclick: () => location.reload() }, "Look again"),
      ),
    );
    return;
  }
  if (!ready.length) {
    main.append(
      empty(
        "No preference pairs yet",
        "A job learns from a file of preference pairs. Upload one first; its report tells what is in it.",
        h("a.button.primary", { href: "#/datasets" }, "Upload data"),
      ),
    );
    return;
  }
  const given = { ...(source?.requested ?? {}), ...pick(query, ["dataset_id", "base_model"]) };
  main.append(
    build({
      models,
      variants,
      ready,
      demonstrations: datasets.filter(({ status, kind }) => status === "ready" && kind === "demonstration"),
      given,
      signal,
    }),
  );
}

function pick(query, names) {
  return Object.fromEntries(names.filter((name) => query.get(name)).map((name) => [name, query.get(name)]));
}

function build({ models, variants, ready, demonstrations, given, signal }) {
  const explanation = h("div.stack");
  const resolved = h("div.stack", { "aria-live": "polite" });
  const submit = h("button.primary", { type: "submit" }, "Start the job");
  const trouble = h("div");
  const choices = {
    models: models.map(({ name, kind, num_parameters: size }) => [
      name,
      `${name} · ${parameters(size)} parameters${kind === "tuned" ? ", tuned here" : ""}`,
    ]),
    variants: variants.data.filter(({ data }) => data === "preference"),
    datasets: ready.map(({ id, name, num_accepted: rows }) => [id, `${name} · ${plural(rows, "pair")}`]),
    demonstrations: demonstrations.map(({ id, name, num_accepted: rows }) => [id, `${name} · ${count(rows)} rows`]),
  };
  const form = new JobForm(choices, given);
  let timer = null;
  let asked = new AbortController();
  const preview = async () => {
    asked.abort();
    asked = new AbortController();
    const request = form.request();
    fill(explanation, variantCard(form.variant, request.beta ?? form.variant.default_beta, variants.legend));
    try {
      const { spec, rows, warnings } = await post("/jobs/preview", request, { signal: AbortSignal.any([asked.signal, signal]) });
      form.showFaults([]);
      fill(resolved, beforeTheJob(warnings, rows), resolvedCard(spec, request, form.variant));
      submit.disabled = false;
    } catch (error) {
      if (error.name === "AbortError") return;
      const unplaced = form.showFaults(error.errors ?? []);
      fill(
        resolved,
        error.errors?.length && !unplaced.length
          ? card("What the job will do", h("p.error-text", null, "Fix the highlighted fields first."))
          : errorBox(error),
      );
      submit.disabled = true;
    }
  };
  form.onChange = () => {
    clearTimeout(timer);
    timer = setTimeout(preview, PREVIEW_MS);
  };
  const send = (event) => {
    event.preventDefault();
    act(submit, async () => {
      try {
        const job = await post("/jobs", form.request(), { creates: true });
        toast("Queued.");
        location.hash = `#${path("jobs", job.id)}`;
      } catch (error) {
        form.showFaults(error.errors ?? []);
        fill(trouble, errorBox(error));
      }
    });
  };
  preview();
  return h(
    "form.columns",
    { onsubmit: send, novalidate: true },
    h(
      "div.stack",
      null,
      form.element,
      trouble,
      h(
        "div.actions",
        null,
        submit,
        h("span.hint", null, "Starts as soon as a worker is free. You can pause or cancel it at any time."),
      ),
    ),
    h(
      "div.stack",
      null,
      resolved,
      explanation,
      card(
        "What beta does",
        BETA_TEXT.map((text) => h("p.hint", null, text)),
      ),
    ),
  );
}
