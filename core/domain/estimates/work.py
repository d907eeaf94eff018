"""The work of a job before it runs: its passes over the rows, in the numbers that time grows with.

The same arithmetic describes a job that is planned, from lengths of a sample of its rows, and one that was measured,
from all of them: what it leaves out is in both.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from core.domain.jobs.job_spec import JobSpec, total_steps
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import get_method
from core.domain.training.sharing import LARGEST_WHOLE, MIN_SHARED_TOKENS
from core.domain.variants.checks import get_variant

GENERATED_TOKENS = 128
"""Tokens generated at most for an answer to a sample prompt."""
DRAWN_TOKENS = 24 * 16
"""Tokens drawn at most from the reference for the divergence, where rows are held out."""
TRAINING_PASSES = 3
"""Forward and backward, in forward passes."""

MAX_BATCHES = 64
_STRIDE = 7
"""Rows are tried in another order than they stand, as neighbours are often alike."""
MAX_SAMPLE = 2048
"""Rows whose packing into micro-batches is tried."""

Lengths = tuple[int, int, int]
"""Tokens of a row: prompt, first response, second response (0 where there is none)."""
Texts = tuple[int, int, int]
"""Hashes of the same texts, equal where their tokens are."""


@dataclass(frozen=True, kw_only=True)
class PassSizes:
    """Sums over rows as one kind of pass computes them."""

    rows: float = 0.0
    tokens: float = 0.0
    """Packed tokens."""
    attention: float = 0.0
    """Pairs of a token and one before it that it attends to."""
    scored: float = 0.0
    """Tokens whose distribution over the vocabulary is computed."""

    def __add__(self, other: "PassSizes") -> "PassSizes":
        return PassSizes(
            rows=self.rows + other.rows,
            tokens=self.tokens + other.tokens,
            attention=self.attention + other.attention,
            scored=self.scored + other.scored,
        )

    def times(self, factor: float) -> "PassSizes":
        return PassSizes(
            rows=self.rows * factor,
            tokens=self.tokens * factor,
            attention=self.attention * factor,
            scored=self.scored * factor,
        )


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Sizes of a set of rows: with both responses, as the preference stage packs them, and with the first alone."""

    whole: PassSizes
    first: PassSizes
    sample: tuple[tuple[int, int], ...] = ()
    """Packed tokens of some rows, at even distances: with both responses, and with the first alone."""
    prompt_rows: tuple[int, ...] = ()
    """Rows of each prompt in the sample, where steps take whole prompts; the sample then has prompts for rows."""
    cuts_prompts: bool = True
    """Whether a prompt with more rows than a step goes over several steps; else it is a step of its own."""

    @classmethod
    def measure(cls, rows: Iterable[Lengths], *, is_paired: bool = True) -> Self:
        """Sum up rows; of unpaired ones the preference stage takes each response twice, its own and as a partner."""
        sums = [[0.0] * 4, [0.0] * 4]
        packed: list[tuple[int, int]] = []
        for prompt, first, second in rows:
            alone = (float(prompt + first), (prompt + first) ** 2 / 2, float(first))
            whole = _pair(prompt, first, second) if is_paired else alone
            for total, added in zip(sums, (whole, alone), strict=True):
                total[0] += 1
                for index, value in enumerate(added, 1):
                    total[index] += value
            packed.append((int(whole[0]), prompt + first))
        whole_sizes, first_sizes = (
            PassSizes(rows=count, tokens=tokens, attention=attention, scored=scored)
            for count, tokens, attention, scored in sums
        )
        if not is_paired:
            whole_sizes = replace(whole_sizes.times(2), rows=whole_sizes.rows)
        step = max(1, -(-len(packed) // MAX_SAMPLE))
        return cls(whole=whole_sizes, first=first_sizes, sample=tuple(packed[::step]))

    @classmethod
    def measure_prompts(cls, rows: Sequence[Lengths], texts: Sequence[Texts], most_rows: int | None) -> Self:
        """Sum up pairs whose steps take whole prompts: each response of a prompt runs once, however many pairs have it.

        Args:
            texts: of `rows`, in the same order.
            most_rows: rows of a step, over which a larger prompt is cut; None: it is a step of its own.
        """
        prompts: dict[int, list[int]] = {}
        for number, (prompt, *_) in enumerate(texts):
            prompts.setdefault(prompt, []).append(number)
        whole, first = PassSizes(), PassSizes()
        packed: list[tuple[int, int, int]] = []
        for members in prompts.values():
            for start in range(0, len(members), most_rows or len(members)):
                part = members[start : start + (most_rows or len(members))]
                firsts = {texts[number][1]: rows[number][1] for number in part}
                both = firsts | {texts[number][2]: rows[number][2] for number in part}
                of_both, of_firsts = (_forest(len(part), rows[part[0]][0], found.values()) for found in (both, firsts))
                whole, first = whole + of_both, first + of_firsts
                packed.append((int(of_both.tokens), int(of_firsts.tokens), len(part)))
        kept = packed[:: max(1, -(-len(packed) // MAX_SAMPLE))]
        sample = tuple((tokens, first_tokens) for tokens, first_tokens, _ in kept)
        numbers = tuple(number for *_, number in kept)
        return cls(whole=whole, first=first, sample=sample, prompt_rows=numbers, cuts_prompts=most_rows is not None)

    def rows_per_step(self, batch: int) -> float:
        """Return the mean rows of a step: one that takes whole prompts may end before it is full."""
        steps = room = 0
        for number in self.prompt_rows:
            if number > room:
                added = math.ceil(number / batch) if self.cuts_prompts else 1
                steps, room = steps + added, max(added * batch, number)
            room -= number
        return sum(self.prompt_rows) / steps if steps else batch

    def times(self, factor: float) -> "SplitSizes":
        """Return the sizes of so many times the rows, of the same lengths."""
        return replace(self, whole=self.whole.times(factor), first=self.first.times(factor))


def _forest(rows: int, prompt: int, responses: Collection[int]) -> PassSizes:
    """Return the sizes of a prompt with different responses of these lengths."""
    scored = sum(responses)
    return PassSizes(
        rows=rows,
        tokens=scored + prompt * (len(responses) if prompt < MIN_SHARED_TOKENS else 1),
        attention=prompt**2 / 2 + sum(response * prompt + response**2 / 2 for response in responses),
        scored=scored,
    )


def _pair(prompt: int, first: int, second: int) -> tuple[float, float, float]:
    repeated = prompt if prompt < MIN_SHARED_TOKENS else 0
    attention = (prompt + first) ** 2 / 2 + second * prompt + second**2 / 2
    return prompt + repeated + first + second, attention, first + second


@dataclass(frozen=True, kw_only=True)
class JobSizes:
    """Rows that a job trains on and those that it holds out; `sft`: what its SFT stage takes."""

    train: SplitSizes
    validation: SplitSizes | None = None
    sft: PassSizes | None = None
    """None: the first responses of `train`."""
    sft_sample: tuple[tuple[int, int], ...] = ()
    """Sample of those rows; empty: that of `train`."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """All passes of one kind in a job."""

    lap: str
    """Name of the laps of the trainer's timeline that it takes."""
    stage: str
    is_training: bool
    sizes: PassSizes
    updates: int
    """Optimizer steps, or batches of a pass that does not train."""
    micro_batches: int
    micro_batch_tokens: int
    """Packed tokens of the largest micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a job does, as far as its time depends on it."""

    passes: list[Pass]
    steps: dict[str, int]
    """Optimizer steps by stage."""
    checkpoints: dict[str, int]
    """Checkpoints written, by stage."""
    begin_tokens: int
    """Tokens generated at most before the first step of the last training stage."""
    answer_tokens: int
    """The same after the last."""

    def without(self, stages: Collection[str]) -> "Work":
        """Return the work of a job that takes over the output of these stages."""
        return replace(
            self,
            passes=[item for item in self.passes if item.stage not in stages],
            checkpoints={stage: number for stage, number in self.checkpoints.items() if stage not in stages},
        )

    def stage_tokens(self) -> dict[str, int]:
        """Return the packed tokens that each stage computes."""
        found: dict[str, int] = {}
        for item in self.passes:
            found[item.stage] = found.get(item.stage, 0) + round(item.sizes.tokens)
        return found


def plan_work(spec: JobSpec, sizes: JobSizes) -> Work:
    """Return the work of a staged `spec`, which has no `auto` left; early stopping is left out."""
    values = spec.model_dump()
    micro, every = int(values["micro_batch_tokens"]), int(values["checkpoint_every_steps"])
    is_paired = get_variant(spec.variant).data == "preference"
    passes: list[Pass] = []
    steps: dict[str, int] = {}
    answers = len(spec.sample_prompts) * GENERATED_TOKENS
    if spec.sft != "skip":
        alone = sizes.sft or sizes.train.first
        steps["sft"] = _num_steps(values["sft"], alone.rows, sizes.train if sizes.sft is None else None)
        passes.append(_sft(values["sft"], sizes, steps["sft"], micro))
    last = get_method(spec.method).last
    if last is Stage.SFT:
        passes += _held_out(values, sizes, steps["sft"], micro)
        written = {"sft": math.ceil(steps["sft"] / every)}
        return Work(passes=passes, steps=steps, checkpoints=written, begin_tokens=answers, answer_tokens=2 * answers)
    stage, batch = last.value, int(values[last.value]["batch_size"])
    whole = [row for row, _ in sizes.train.sample]
    packed = Packing.of(whole, batch, micro, times=1 if is_paired else 2, prompt_rows=sizes.train.prompt_rows)
    per_step = sizes.train.rows_per_step(batch)
    train, held_out = sizes.train.whole, sizes.validation.whole if sizes.validation else PassSizes()
    if last is Stage.REWARD:  # no distribution over the vocabulary is computed
        train, held_out = replace(train, scored=0.0), replace(held_out, scored=0.0)
    steps[stage] = _num_steps(values[stage], train.rows, sizes.train)
    checkpoints = {stage: math.ceil(number / every) for stage, number in steps.items()}
    if last is Stage.DPO and get_variant(spec.variant).needs_reference:
        reference = _pass("reference:part", "reference", train + held_out, per_step, packed)
        passes.append(reference)
        checkpoints["reference"] = (reference.updates - 1) // every
    passes += _comparing(
        values, stage, (train, held_out), steps[stage], partial(_pass, rows_per_batch=per_step, packed=packed)
    )
    return Work(
        passes=passes,
        steps=steps,
        checkpoints=checkpoints,
        begin_tokens=answers + (DRAWN_TOKENS if held_out.rows and last is Stage.DPO else 0),
        answer_tokens=2 * answers,
    )


def _comparing(
    values: dict[str, Any],
    stage: str,
    splits: tuple[PassSizes, PassSizes],
    num_steps: int,
    make: Callable[..., Pass],
) -> list[Pass]:
    """Return the passes of a last stage that compares responses: its steps, its evaluations, the report on pairs."""
    train, held_out = splits
    found = [make(f"{stage}:step", stage, train, times=int(values[stage]["epochs"]), is_training=True)]
    if held_out.rows:
        times = math.ceil(num_steps / int(values["evaluate_every_steps"])) + 1
        found.append(make(f"{stage}:validation", stage, held_out, times=times))
    if values["score_training_pairs"]:
        found.append(make("evaluation:part", "evaluation", train))
    return found


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Micro-batches of a batch of rows, as tried out on a sample."""

    per_batch: float
    largest_tokens: int

    @classmethod
    def of(
        cls, rows: Sequence[int], batch: int, micro: int, *, times: int = 1, prompt_rows: Sequence[int] = ()
    ) -> "Packing":
        """Pack rows, by their packed tokens, first-fit-decreasing.

        Args:
            times: each batch runs so many times.
            prompt_rows: rows of each prompt, where `rows` are whole prompts; they are cut where they do not fit.
        """
        if prompt_rows:
            batch = max(1, int(batch * len(prompt_rows) / sum(prompt_rows)))
        mixed = [row for start in range(_STRIDE) for row in rows[start::_STRIDE]]
        batches = [mixed[start : start + batch] for start in range(0, len(mixed), batch)][:MAX_BATCHES]
        if prompt_rows:
            batches = [[piece for row in rows_of_batch for piece in _pieces(row, micro)] for rows_of_batch in batches]
        filled = [_fill(rows_of_batch, micro) for rows_of_batch in batches]
        if not filled:
            return cls(per_batch=float(times), largest_tokens=0)
        return cls(per_batch=times * sum(map(len, filled)) / len(filled), largest_tokens=max(map(max, filled)))


def _fill(rows: Sequence[int], micro: int) -> list[int]:
    """Return the tokens of each micro-batch; a longer row has one of its own."""
    bins: list[int] = []
    for row in sorted(rows, reverse=True):
        place = next((index for index, filled in enumerate(bins) if filled + row <= micro), None)
        if place is None:
            bins.append(row)
        else:
            bins[place] += row
    return bins


def _pieces(tokens: int, micro: int) -> list[int]:
    """Return the tokens of a prompt with its responses in the micro-batches that it takes."""
    if tokens <= LARGEST_WHOLE * micro:
        return [tokens]
    number = math.ceil(tokens / micro)
    return [math.ceil(tokens / number)] * number


def _num_steps(stage: dict[str, Any], rows: float, split: SplitSizes | None) -> int:
    """Return the optimizer steps of a stage over rows of a split; None: every step is full."""
    if split is None or not split.prompt_rows:
        return total_steps(stage, round(rows))
    per_step = split.rows_per_step(int(stage["batch_size"]))
    return int(stage["epochs"]) * math.ceil(round(rows / per_step, 6))


def _held_out(values: dict[str, Any], sizes: JobSizes, num_steps: int, micro: int) -> list[Pass]:
    """Return the evaluation of SFT that is all of the training, over responses alone."""
    if sizes.validation is None or not sizes.validation.first.rows:
        return []
    batch = int(values["sft"]["batch_size"])
    packed = Packing.of([row for _, row in sizes.train.sample], batch, micro, prompt_rows=sizes.train.prompt_rows)
    per_step = sizes.train.rows_per_step(batch)
    times = math.ceil(num_steps / int(values["evaluate_every_steps"])) + 1
    return [_pass("sft:validation", "sft", sizes.validation.first, per_step, packed, times=times)]


def _sft(settings: dict[str, Any], sizes: JobSizes, num_steps: int, micro: int) -> Pass:
    rows, batch = sizes.sft or sizes.train.first, int(settings["batch_size"])
    of_prompts = sizes.train.prompt_rows if sizes.sft is None else ()
    sample = [row for _, row in sizes.sft_sample or sizes.train.sample]
    packed = Packing.of(sample, batch, micro, prompt_rows=of_prompts)
    per_step = sizes.train.rows_per_step(batch) if of_prompts else batch
    return replace(
        _pass("sft:step", "sft", rows, per_step, packed, times=int(settings["epochs"]), is_training=True),
        updates=num_steps,
    )


def _pass(
    lap: str,
    stage: str,
    sizes: PassSizes,
    rows_per_batch: float,
    packed: Packing,
    *,
    times: int = 1,
    is_training: bool = False,
) -> Pass:
    batches = times * math.ceil(round(sizes.rows / rows_per_batch, 6))
    return Pass(
        lap=lap,
        stage=stage,
        is_training=is_training,
        sizes=sizes.times(times),
        updates=batches,
        micro_batches=math.ceil(batches * packed.per_batch),
        micro_batch_tokens=packed.largest_tokens,
    )
