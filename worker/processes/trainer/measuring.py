"""Measurement of a whole run, for estimates of later jobs: its work, its times and its memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from core.domain.estimates.speeds import Measurement, ModelShape
from core.domain.estimates.work import JobSizes, Pass, SplitSizes, Work, plan_work
from core.domain.jobs.job_spec import JobSpec
from core.domain.variants.checks import get_variant
from core.training.data.encoded import EncodedData
from core.training.data.prompt_groups import prompt_groups
from worker.processes.trainer.inputs import EncodedInputs
from worker.processes.trainer.timeline import Timeline, peak_bytes

MAX_ROWS = 20_000
"""Rows of a split whose lengths are looked at; of more, every n-th."""


def measure(
    base_model_dir: Path,
    spec: JobSpec,
    inputs: EncodedInputs,
    timeline: Timeline,
    footprints: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what was measured, as JSON; what only the supervisor can time is 0 in it."""
    work = plan_work(spec, _sizes(inputs, spec))
    seconds = {name: lap.seconds for name, lap in timeline.laps.items()}
    numbers = {name: lap.number for name, lap in timeline.laps.items()}
    times = Measurement(
        shape=_shape(base_model_dir, spec),
        passes=[_as_run(item, numbers, work) for item in work.passes if item.lap in seconds],
        laps=seconds,
        num_laps=numbers,
        begin_tokens=work.begin_tokens,
        answer_tokens=work.answer_tokens,
        start_seconds=0.0,
        publish_seconds=0.0,
    )
    return {
        "num_parameters": spec.num_parameters,
        "times": times.to_values(),
        "memory": {
            "peak_bytes": peak_bytes(timeline.device),
            "lap_peaks": {name: lap.peak_bytes for name, lap in timeline.laps.items()},
            "footprints": {stage: dict(footprint) for stage, footprint in footprints.items()},
        },
        "tokens": work.stage_tokens(),
        "steps": {stage: numbers.get(f"{stage}:step", 0) for stage in work.steps},
    }


def _as_run(item: Pass, numbers: Mapping[str, int], work: Work) -> Pass:
    """Return the pass as far as it was run: early stopping ends the last stage before its time."""
    planned = work.steps.get(item.stage, 0)
    if not planned or item.stage == "sft":
        return item
    share = min(1.0, numbers.get(f"{item.stage}:step", 0) / planned)
    return replace(
        item,
        sizes=item.sizes.times(share),
        updates=round(item.updates * share),
        micro_batches=round(item.micro_batches * share),
    )


def _shape(base_model_dir: Path, spec: JobSpec) -> ModelShape:
    config = AutoConfig.from_pretrained(base_model_dir, local_files_only=True)
    text = config.get_text_config()
    hidden, vocabulary = int(getattr(text, "hidden_size", 0)), int(getattr(text, "vocab_size", 0))
    tables = vocabulary * hidden * (1 if getattr(config, "tie_word_embeddings", False) else 2)
    return ModelShape(
        body_parameters=max(0, spec.num_parameters - tables),
        num_layers=int(getattr(text, "num_hidden_layers", 0)),
        hidden_size=hidden,
        vocabulary=vocabulary,
    )


def _sizes(inputs: EncodedInputs, spec: JobSpec) -> JobSizes:
    train = EncodedData.open(inputs.train.directory)
    measure: Callable[[EncodedData], SplitSizes] = _split
    if spec.group_by_prompt is True and train.kind == "preference":
        most_rows = None if get_variant(spec.variant).compares_lists else int(spec.last_stage.batch_size)
        measure = partial(_prompts, most_rows=most_rows)
    sft: SplitSizes | None = None
    if spec.sft != "skip" and inputs.sft is not None:
        sft = _split(EncodedData.open(inputs.sft.directory))
    elif spec.sft != "skip" and train.kind == "unpaired":
        sft = _split(train.select(np.flatnonzero(train.labels)))
    validation = None if inputs.validation is None else measure(EncodedData.open(inputs.validation.directory))
    return JobSizes(
        train=measure(train),
        validation=validation,
        sft=sft.first if sft else None,
        sft_sample=sft.sample if sft else (),
    )


def _split(data: EncodedData) -> SplitSizes:
    step = max(1, -(-len(data) // MAX_ROWS))
    columns = (data.prompt_lengths, data.first_lengths, data.second_lengths)
    rows = zip(*(column[::step].tolist() for column in columns), strict=True)
    found = SplitSizes.measure(rows, is_paired=data.kind != "unpaired")
    return found.times(len(data) / found.whole.rows) if found.whole.rows else found


def _prompts(data: EncodedData, most_rows: int | None) -> SplitSizes:
    """Sum up a split whose steps take whole prompts."""
    step = max(1, -(-len(data) // MAX_ROWS))
    chosen = data.select(np.flatnonzero(prompt_groups(data) % step == 0)) if step > 1 else data
    rows = [(row.prompt, row.first, row.second) for row in map(chosen.row, range(len(chosen)))]
    lengths = [(len(prompt), len(first), len(second)) for prompt, first, second in rows]
    texts = [(hash(prompt.tobytes()), hash(first.tobytes()), hash(second.tobytes())) for prompt, first, second in rows]
    found = SplitSizes.measure_prompts(lengths, texts, most_rows)
    return found.times(len(data) / len(rows)) if rows else found
