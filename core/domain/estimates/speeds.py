"""Speeds of earlier jobs: fitted to what their trainings took, and applied to the work of another one.

A pass takes so many seconds for its arithmetic, its micro-batches and its updates. The three rates are fitted by least
squares of relative errors, none below zero, over all measured passes; where these cannot tell two of them apart, the
rates keep the proportions of a nominal machine. Newer measurements count more: the speed of a machine is that of its
present load.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from core.domain import typed_json
from core.domain.estimates.work import TRAINING_PASSES, Pass, PassSizes, Work
from core.domain.jobs.job_state import Stage


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Bounds of a time in seconds."""

    low: float
    high: float

    def after(self, seconds: float) -> "Interval":
        """Return what is left of it once so many have passed."""
        return Interval(low=round(max(0.0, self.low - seconds), 1), high=round(max(0.0, self.high - seconds), 1))


RECENCY = 0.85
"""Weight of a measurement, as a multiple of the next newer one's."""
_NOMINAL = (1 / 50e9, 0.005, 0.01)
"""Seconds of an operation, a micro-batch and an update: their proportions, not their sizes."""
_WIDEST = math.log(2) / 2
_NARROWEST, _ALONE, _PER_DOUBLING = 0.1, 0.15, 0.03
"""Half-width of an interval in logarithms: always, for a single measurement, for a size twice or half as large."""
_LOADING = ("reference:start", "reference:skipped")
"""Laps in which the policy of the preference stage is loaded, unless the reference is taken over."""
_PULL = 0.03
"""Weight of the nominal proportions, as a multiple of a measurement's."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Dimensions of a base model that the cost of a pass depends on."""

    body_parameters: int
    """Without embeddings and LM head."""
    num_layers: int
    hidden_size: int
    vocabulary: int

    def operations(self, sizes: PassSizes) -> float:
        """Return the operations of one forward pass."""
        body = sizes.tokens * self.body_parameters
        attention = sizes.attention * 2 * self.num_layers * self.hidden_size
        head = sizes.scored * self.vocabulary * self.hidden_size
        return 2 * (body + attention + head)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Measured times of one job that ran in one attempt, from a worker of one class."""

    shape: ModelShape
    passes: list[Pass]
    laps: dict[str, float]
    """Seconds of each kind of lap."""
    num_laps: dict[str, int]
    begin_tokens: int
    answer_tokens: int
    start_seconds: float
    """Time from the claim to the trainer's first message: inputs fetched, libraries loaded."""
    publish_seconds: float
    """Time from the trainer's last message to the published policy."""

    @property
    def seconds(self) -> float:
        return self.start_seconds + sum(self.laps.values()) + self.publish_seconds

    def work(self) -> Work:
        """Return what the job did."""
        checkpoints = {
            name.partition(":")[0]: number for name, number in self.num_laps.items() if name.endswith(":checkpoint")
        }
        return Work(
            passes=self.passes,
            steps={},
            checkpoints=checkpoints,
            begin_tokens=self.begin_tokens,
            answer_tokens=self.answer_tokens,
        )

    def to_values(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild what `to_values` returned; later keys are left out."""
        return typed_json.from_values(cls, values, ignores_unknown=True)


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Rates fitted to measurements of one base model on one class of worker, the newest first."""

    shape: ModelShape
    training: tuple[float, ...]
    forward: tuple[float, ...]
    """Seconds of an operation, a micro-batch, an update."""
    measurements: Sequence[Measurement] = field(repr=False)

    @classmethod
    def fit(cls, measurements: Sequence[Measurement]) -> Self:
        """Fit to at least one measurement, the newest first."""
        shape = measurements[0].shape
        samples: dict[bool, list[_Sample]] = {True: [], False: []}
        for age, item in enumerate(measurements):
            for done in item.passes:
                seconds = item.laps.get(done.lap, 0.0)
                if seconds > 0 and done.updates > 0:
                    sample = _Sample(_features(item.shape, done), seconds, RECENCY**age)
                    samples[done.is_training].append(sample)
        return cls(
            shape=shape,
            training=_fit(samples[True] or samples[False]),
            forward=_fit(samples[False] or samples[True]),
            measurements=measurements,
        )

    def stage_seconds(self, work: Work) -> dict[str, float]:
        """Predict the seconds of every stage of a job."""
        seconds = dict.fromkeys([stage.value for stage in Stage], 0.0)
        for item in work.passes:
            seconds[item.stage] += self.pass_seconds(item)
        seconds["reference"] += self._mean(
            lambda item: next((item.laps[lap] for lap in _LOADING if lap in item.laps), None)
        )
        for lap in self._other_laps(work):
            seconds[_stage_of(lap)] += self._lap_seconds(lap, work)
        seconds["staging"] += self._mean(lambda item: item.start_seconds)
        seconds["publishing"] += self._mean(lambda item: item.publish_seconds)
        return seconds

    def interval(self, work: Work) -> Interval:
        """Return bounds of the seconds of a job; the upper one is at most twice the lower one.

        They are as far apart as the measured jobs are from what the rates say of them, and further the fewer these are
        and the more the job's size differs from theirs.
        """
        middle = sum(self.stage_seconds(work).values())
        wide = math.exp(min(_WIDEST, self._spread() + self._distance(work)))
        low = round(middle / wide, 1)
        return Interval(low=low, high=min(2 * low, round(middle * wide, 1)))

    def _spread(self) -> float:
        """Return the half-width of the interval in logarithms, from the errors for the measured jobs themselves."""
        errors = [
            (RECENCY**age, math.log(item.seconds / sum(self.stage_seconds(item.work()).values())) ** 2)
            for age, item in enumerate(self.measurements)
        ]
        mean = sum(weight * error for weight, error in errors) / sum(weight for weight, _ in errors)
        return _NARROWEST + 2 * math.sqrt(mean) + _ALONE / len(errors)

    def _distance(self, work: Work) -> float:
        """Return what is added for a size unlike those that were measured: little for each doubling."""
        planned = self._operations(work.passes)
        nearest = min(abs(math.log(planned / self._operations(item.passes))) for item in self.measurements)
        return _PER_DOUBLING * nearest / math.log(2)

    def _operations(self, passes: Sequence[Pass]) -> float:
        return 1.0 + sum(_features(self.shape, item)[0] for item in passes)

    def pass_seconds(self, item: Pass) -> float:
        rates = self.training if item.is_training else self.forward
        return sum(rate * feature for rate, feature in zip(rates, _features(self.shape, item), strict=True))

    def _other_laps(self, work: Work) -> list[str]:
        """Return the laps, besides passes, of the stages that the work has."""
        passes = {item.lap for item in work.passes}
        stages = {item.stage for item in work.passes} | {"staging", "evaluation", "finish"}
        found = dict.fromkeys(name for item in self.measurements for name in item.laps)
        measured = {done.lap for item in self.measurements for done in item.passes}
        known = passes | measured | {*_LOADING}
        return [name for name in found if name not in known and name.partition(":")[0] in stages]

    def _lap_seconds(self, name: str, work: Work) -> float:
        """Predict the laps of one kind: by their number, by generated tokens, or as they were."""
        stage, _, kind = name.partition(":")
        if kind == "checkpoint":
            once = self._mean(lambda item: _ratio(item.laps.get(name), item.num_laps.get(name, 0)))
            return once * work.checkpoints.get(stage, 0)
        if kind in ("skipped", "reused"):
            return 0.0
        if name in _GENERATING:
            planned, measured = _GENERATING[name]
            rate = self._mean(lambda item: _ratio(item.laps.get(name), measured(item)))
            return rate * planned(work)
        return self._mean(lambda item: item.laps.get(name))

    def _mean(self, value: Callable[[Measurement], float | None]) -> float:
        """Return the mean over the measurements that have a value; newer ones count more."""
        found = [
            (RECENCY**age, number) for age, item in enumerate(self.measurements) if (number := value(item)) is not None
        ]
        return sum(weight * number for weight, number in found) / sum(weight for weight, _ in found) if found else 0.0


_GENERATING: dict[str, tuple[Callable[[Work], int], Callable[[Measurement], int]]] = {
    "sft:part": (lambda work: work.begin_tokens, lambda item: item.begin_tokens),
    "dpo:part": (lambda work: work.begin_tokens, lambda item: item.begin_tokens),
    "evaluation:answers": (lambda work: work.answer_tokens, lambda item: item.answer_tokens),
}
"""Laps that generate text: the tokens at most of a planned job, and of a measured one."""


def _ratio(seconds: float | None, number: int) -> float | None:
    return None if seconds is None or not number else seconds / number


def _stage_of(lap: str) -> str:
    stage = lap.partition(":")[0]
    return "publishing" if stage == "finish" else stage


@dataclass(frozen=True)
class _Sample:
    features: tuple[float, float, float]
    seconds: float
    weight: float


def _features(shape: ModelShape, item: Pass) -> tuple[float, float, float]:
    passes = TRAINING_PASSES if item.is_training else 1
    return passes * shape.operations(item.sizes), float(passes * item.micro_batches), float(item.updates)


def _fit(samples: Sequence[_Sample]) -> tuple[float, ...]:
    """Return rates, none below zero, with the least sum of squared relative errors."""
    if not samples:
        return (0.0, 0.0, 0.0)
    scale = _scale(samples)
    nominal = [rate * scale for rate in _NOMINAL]
    # Unknown is the rate as a multiple of its nominal one, so that all are near 1.
    rows = [
        (
            [feature * rate / item.seconds for feature, rate in zip(item.features, nominal, strict=True)],
            1.0,
            item.weight,
        )
        for item in samples
    ]
    pulls = [([float(row == column) for column in range(3)], 1.0, _PULL**2) for row in range(3)]
    best, least = [1.0, 1.0, 1.0], math.inf
    for size in (3, 2, 1):
        for kept in itertools.combinations(range(3), size):
            found = _least_squares([*rows, *pulls], kept)
            if found is None or min(found) < 0:
                continue
            error = sum(
                weight * (target - sum(map(float.__mul__, values, found))) ** 2
                for values, target, weight in [*rows, *pulls]
            )
            if error < least:
                best, least = found, error
    return tuple(rate * factor for rate, factor in zip(nominal, best, strict=True))


def _scale(samples: Sequence[_Sample]) -> float:
    """Return by how much slower than the nominal machine the measured one is, the weighted geometric mean."""
    logs = [
        (item.weight, math.log(item.seconds / sum(map(float.__mul__, item.features, _NOMINAL)))) for item in samples
    ]
    return math.exp(sum(weight * value for weight, value in logs) / sum(weight for weight, _ in logs))


def _least_squares(rows: Sequence[tuple[list[float], float, float]], kept: Sequence[int]) -> list[float] | None:
    """Solve for the kept unknowns, the others being 0; None where the equations do not determine them."""
    matrix = [
        [sum(w * v[i] * v[j] for v, _, w in rows) for j in kept] + [sum(w * v[i] * t for v, t, w in rows)] for i in kept
    ]
    size = len(kept)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        if abs(matrix[pivot][column]) < 1e-12:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        for row in range(size):
            if row != column:
                factor = matrix[row][column] / matrix[column][column]
                matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[column], strict=True)]
    found = [0.0] * 3
    for place, unknown in enumerate(kept):
        found[unknown] = matrix[place][size] / matrix[place][place]
    return found
