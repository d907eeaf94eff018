"""Sizes of the rows that a job would train on, from the statistics of its datasets for its base model."""

import math
from dataclasses import dataclass

from core.domain.dataset_rows import DatasetKind
from core.domain.estimates.work import JobSizes, SplitSizes
from core.domain.jobs.job_spec import JobSpec
from core.domain.jobs.methods import get_method
from core.domain.training.sharing import is_ranked
from core.domain.variants.checks import get_variant
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.previews import SeenBy, find_token_statistics
from core.services.views import TokenStatisticsView


@dataclass(frozen=True, kw_only=True)
class PlannedRows:
    """Rows of a job before they are encoded."""

    sizes: JobSizes
    num_train: int
    num_validation: int
    num_set_aside: int
    is_exact: bool
    """Every row was looked at, and steps take no whole prompts; else sizes come from a sample."""


def plan_rows(
    backend: Backend, project_id: str, spec: JobSpec, found: TokenStatisticsView | None
) -> PlannedRows | None:
    """Return the rows of a job; None where this machine lacks the tokenizer, or no row fits.

    Args:
        found: statistics of the job's own dataset.
    """
    if found is None or not found.kept_rows:
        return None
    method = get_method(spec.method)
    is_paired = method.encoded_kind_for(spec.variant) is DatasetKind.PREFERENCE
    num_rows = max(1, spec.num_pairs - len(spec.exclude_lines))
    by_prompt = _takes_prompts(spec, found, is_paired=is_paired)
    kept = _measure(spec, found, is_paired=is_paired, by_prompt=by_prompt)
    num_kept = max(1, round(num_rows * len(found.kept_rows) / found.num_rows))
    num_held_out = min(num_kept - 1, math.ceil(spec.validation_fraction * num_kept))
    is_exact = found.is_exact and not by_prompt and spec.group_by_prompt is not True
    share = 1 / len(found.kept_rows)
    validation = kept.times(num_held_out * share) if num_held_out else None
    if spec.validation_dataset_id:
        validation = _whole(
            backend, project_id, spec, spec.validation_dataset_id, is_paired=is_paired, by_prompt=by_prompt
        )
        if validation is None:
            return None
        num_held_out = 0
    train = kept.times((num_kept - num_held_out) * share)
    if method.encoded_kind is DatasetKind.DEMONSTRATION:  # of marked responses the good ones
        train = train.times(found.num_good * share)
    sft_sample: tuple[tuple[int, int], ...] = ()
    sft = None if is_paired else train.first.times(found.num_good * share)
    if spec.sft != "skip" and spec.sft.dataset_id:
        demonstrations = _whole(backend, project_id, spec, spec.sft.dataset_id, is_paired=False)
        if demonstrations is None:
            return None
        sft, sft_sample = demonstrations.first, demonstrations.sample
    return PlannedRows(
        sizes=JobSizes(train=train, validation=validation, sft=sft, sft_sample=sft_sample),
        num_train=round(train.whole.rows),
        num_validation=round(validation.whole.rows) if validation else 0,
        num_set_aside=num_rows - num_kept,
        is_exact=is_exact,
    )


def _takes_prompts(spec: JobSpec, found: TokenStatisticsView, *, is_paired: bool) -> bool:
    """Whether steps take whole prompts of pairs, as the trainer decides it."""
    if not is_paired:
        return False
    if spec.group_by_prompt == "auto":
        return get_variant(spec.variant).compares_lists or is_ranked(found.kept_texts)
    return spec.group_by_prompt


def _measure(spec: JobSpec, found: TokenStatisticsView, *, is_paired: bool, by_prompt: bool) -> SplitSizes:
    if not by_prompt:
        return SplitSizes.measure(found.kept_rows, is_paired=is_paired)
    most_rows = None if get_variant(spec.variant).compares_lists else int(spec.last_stage.batch_size)
    return SplitSizes.measure_prompts(found.kept_rows, found.kept_texts, most_rows)


def _whole(
    backend: Backend, project_id: str, spec: JobSpec, dataset_id: str, *, is_paired: bool, by_prompt: bool = False
) -> SplitSizes | None:
    """Return the sizes of a dataset all of whose rows that fit are used."""
    found = find_token_statistics(backend, project_id, dataset_id, seen_by(spec))
    if found is None or not found.kept_rows:
        return None
    num_rows = datasets.get(backend, project_id, dataset_id).num_accepted
    return _measure(spec, found, is_paired=is_paired, by_prompt=by_prompt).times(num_rows / found.num_rows)


def seen_by(spec: JobSpec) -> SeenBy:
    return SeenBy(base_model=spec.base_model, max_length=spec.max_length, template_kwargs=spec.chat_template_kwargs)
