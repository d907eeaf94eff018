// Name, tags and notes of a job, and the form that changes them.

import { patch, path } from "../api.js";
import { fill, h } from "../dom.js";
import { act, errorBox, toast } from "../parts.js";
import { tagLink, tagsOf } from "./row.js";

const MAX_CHARS = 512;

/** Tags and notes as they are; "Edit" opens the form in their place. `onChanged` gets the job as it is then. */
export function aboutView(job, onChanged) {
  const holder = h("div");
  const show = () => fill(holder, reading(job, edit));
  const edit = () => {
    fill(holder, form(job, { onChanged, onCancel: show }));
    holder.querySelector("input").focus();
  };
  show();
  return holder;
}

function reading(job, edit) {
  const { notes } = job.metadata;
  return h(
    "div.tags",
    null,
    tagsOf(job).map(tagLink),
    h("button.quiet.small", { type: "button", onclick: edit }, "Edit name, tags, notes"),
    notes ? h("p.notes", null, notes) : null,
  );
}

function form(job, { onChanged, onCancel }) {
  const name = h("input", { id: "about-name", maxlength: "255", value: job.name ?? "" });
  const tags = h("input", { id: "about-tags", maxlength: String(MAX_CHARS), value: job.metadata.tags ?? "" });
  const notes = h("textarea", { id: "about-notes", maxlength: String(MAX_CHARS), rows: "3" });
  notes.value = job.metadata.notes ?? "";
  const save = h("button.primary", { type: "submit" }, "Save");
  const trouble = h("div");
  const submit = (event) => {
    event.preventDefault();
    act(save, async () => {
      try {
        const changed = await patch(path("jobs", job.id), { name: name.value.trim() || null, metadata: metadata(job, tags, notes) });
        toast("Saved.");
        onChanged(changed);
      } catch (error) {
        fill(trouble, errorBox(error));
      }
    });
  };
  const field = (label, control, hint) =>
    h("div.field", null, h("label", { for: control.id }, label), control, hint ? h("span.hint", null, hint) : null);
  return h(
    "form.card",
    { onsubmit: submit, "aria-label": "Name, tags and notes" },
    field("Name", name),
    field("Tags", tags, "With commas between them; the list of jobs filters by them."),
    field("Notes", notes),
    trouble,
    h("div.actions", null, save, h("button.quiet", { type: "button", onclick: onCancel }, "Back")),
  );
}

/** The job's own metadata with tags and notes as typed; empty ones are left out. */
function metadata(job, tags, notes) {
  const { tags: _tags, notes: _notes, ...rest } = job.metadata;
  const given = { tags: tags.value.trim(), notes: notes.value.trim() };
  return { ...rest, ...Object.fromEntries(Object.entries(given).filter(([, text]) => text)) };
}
