"""A job's spec as JSON: as it is stored, and as it is shown before a job is queued."""

from typing import Any

from pydantic import BaseModel

from core.domain.jobs.job_spec import JobSpec, presets_of
from core.domain.jobs.methods import get_method, without_unused
from core.domain.jobs.released_fields import RELEASED_FIELDS, stored_fields


def stored_form(spec: JobSpec) -> dict[str, Any]:
    """Return the stored JSON, without later fields at their default so that older workers read it.

    Settings without a meaning for the job's method are left out.
    """
    form = _stored(spec, spec.model_dump(mode="json"))
    if spec.micro_batch_tokens != "auto" and spec.group_by_prompt is False:
        del form["group_by_prompt"]  # what a staged spec without it means
    return without_unused(get_method(spec.method), form)


def shown_form(spec: JobSpec) -> dict[str, Any]:
    """Return the JSON that people see before a job is queued: every setting that has a meaning for its method."""
    return without_unused(get_method(spec.method), spec.model_dump(mode="json"))


def accepted_form(spec: JobSpec) -> dict[str, Any]:
    """Return `stored_form` before staging, with later settings left open if they were `auto`."""
    form = stored_form(spec)
    for name, preset in presets_of(spec.model_dump()).items():
        kind = type(getattr(spec, name)).__name__
        for key in preset.keys() - RELEASED_FIELDS.get(kind, preset.keys()):  # all of a later kind came at once
            if form[name].get(key) == preset[key]:
                del form[name][key]
    if form["early_stopping"] and form["early_stopping"].get("restore_best") is True:
        del form["early_stopping"]["restore_best"]
    return form


def _stored(model: BaseModel, dumped: dict[str, Any]) -> dict[str, Any]:
    fields = type(model).model_fields.items()
    each = ((name, getattr(model, name), item.get_default(call_default_factory=True)) for name, item in fields)
    kept = stored_fields(type(model).__name__, each)
    return {
        name: _stored(value, dumped[name]) if isinstance(value, BaseModel) else dumped[name]
        for name, value in kept.items()
    }
