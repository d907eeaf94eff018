"""A sweep as requested, and the jobs that it stands for: each is a job's settings with some of them replaced."""

import copy
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StringConstraints, ValidationError, model_validator

from core.domain.errors import FieldError, InvalidRequest
from core.domain.halving import MAX_ETA, plan_rungs
from core.domain.jobs.job_spec import JobRequest, Metadata, Name, Payload, ValidationMetric
from core.domain.jobs.methods import get_method
from core.domain.json_numbers import MAX_WHOLE, REAL, WHOLE

MAX_MEMBERS = 256
MAX_PARALLEL = 64
MEMBER_OF = "sweep"
"""Key of every member's metadata, with the sweep's id."""
_OWN_KEYS = 31
"""Metadata keys of a member beside that one."""

SettingPath = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[a-z_]+(/[a-z_]+)*$")]
"""Place of a setting in the body of `POST /jobs`, such as `beta` or `dpo/learning_rate`."""
Value = StrictBool | StrictInt | StrictFloat | Annotated[str, StringConstraints(max_length=512)] | None
Values = Annotated[list[Value], Field(min_length=1, max_length=MAX_MEMBERS)]
Overrides = dict[str, Any]
Bound = Annotated[float, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)]


class SweepStrategy(StrEnum):
    ALL = "all"
    """Every member trains to its end."""
    SUCCESSIVE_HALVING = "successive_halving"
    """Members are compared on their way, and the best go on."""


class SweepStatus(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"
    """Every member has ended."""


FINAL_SWEEPS = frozenset({SweepStatus.CANCELLED, SweepStatus.FINISHED})


class Range(Payload):
    """Numbers that are drawn at random."""

    low: Bound = Field(description="The least value.")
    high: Bound = Field(description="The largest value.")
    log: StrictBool = Field(False, description="Draw uniformly in the logarithm, as for learning rates and beta.")
    whole: StrictBool = Field(False, description="Round to whole numbers, as for ranks and seeds.")

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not be above high, and above 0 with log")
        return self

    def draw(self, rng: random.Random) -> float | int:
        """Draw one value."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        return round(value) if self.whole else value


class RandomSearch(Payload):
    """Members drawn at random; the same seed draws the same ones."""

    num_members: Annotated[int, Field(ge=1, le=MAX_MEMBERS), WHOLE] = Field(description="How many.")
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE), WHOLE] = Field(0, description="Seed of the draws.")
    values: Annotated[dict[SettingPath, Range | Values], Field(min_length=1, max_length=16)] = Field(
        description="By setting: a list to choose from, or a range."
    )


class Halving(Payload):
    """How successive halving goes; the defaults suit a dozen members."""

    eta: Annotated[int, Field(ge=2, le=MAX_ETA), WHOLE] = Field(
        3, description="Of the members that come to a rung the best 1/eta go on, rounded up."
    )
    min_share: Annotated[float, Field(ge=0.01, le=0.9), REAL] = Field(
        0.1, description="No rung before this share of a member's steps: earlier figures say little."
    )


class SweepRequest(Payload):
    """The body of `POST /sweeps`: a job, and what differs from member to member."""

    job: JobRequest = Field(description="The body of `POST /jobs` that every member starts from.")
    grid: Annotated[dict[SettingPath, Values], Field(min_length=1, max_length=16)] | None = Field(
        None, description="Every combination of these values, by setting: `beta`, `dpo/learning_rate`, `lora/rank` …"
    )
    random: RandomSearch | None = Field(None, description="Members drawn at random instead.")
    members: Annotated[list[dict[SettingPath, Value]], Field(min_length=1, max_length=MAX_MEMBERS)] | None = Field(
        None, description="Or each member's own settings."
    )
    strategy: SweepStrategy = Field(
        SweepStrategy.ALL,
        description="all: every member trains to its end. successive_halving: members pause at common shares of their "
        "steps (rungs), where the best by `metric` go on and the others are cancelled; it needs held-out rows.",
    )
    halving: Halving | None = Field(None, description="Settings of successive_halving; null: the defaults.")
    metric: ValidationMetric | None = Field(
        None,
        description="Held-out metric by which the best member is chosen; equal ones: the first. null: "
        "rewards/accuracies, of supervised jobs mean_token_accuracy.",
    )
    max_parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL), WHOLE] = Field(
        4, description="Members that are queued or running at most at a time."
    )
    name: Name | None = Field(None, description="A name to recognise it by.")
    metadata: Metadata = Field(default_factory=dict, description="Strings of yours.")

    @model_validator(mode="after")
    def _one_way(self) -> "SweepRequest":
        if sum(part is not None for part in (self.grid, self.random, self.members)) != 1:
            raise ValueError("give exactly one of grid, random and members")
        if self.halving is not None and self.strategy is not SweepStrategy.SUCCESSIVE_HALVING:
            raise ValueError('halving goes with "strategy": "successive_halving"')
        return self

    def plan_halving(self, num_members: int) -> dict[str, Any] | None:
        """Return `eta` and `rungs` of so many members; None where all train to their end."""
        if self.strategy is not SweepStrategy.SUCCESSIVE_HALVING:
            return None
        halving = self.halving or Halving()
        return {"eta": halving.eta, "rungs": plan_rungs(num_members, halving.eta, halving.min_share)}


class SweepExtension(Payload):
    """The body of `POST /sweeps/{id}/extend`: further members."""

    members: Annotated[list[dict[SettingPath, Value]], Field(min_length=1, max_length=MAX_MEMBERS)] = Field(
        description="Each further member's own settings; one that the sweep has already is left out."
    )


def plan_members(request: SweepRequest) -> list[Overrides]:
    """Return the settings of each member, in order and without repetitions. Raises InvalidRequest for too many."""
    if request.grid is not None:
        number = math.prod(map(len, request.grid.values()))
        if number > MAX_MEMBERS:
            fault = f"{number} combinations are more than the {MAX_MEMBERS} members of a sweep"
            raise InvalidRequest(fault, errors=[FieldError("/grid", fault)])
        found = [dict(zip(request.grid, values, strict=True)) for values in itertools.product(*request.grid.values())]
    elif request.random is not None:
        rng = random.Random(request.random.seed)
        found = [
            {
                name: values.draw(rng) if isinstance(values, Range) else rng.choice(values)
                for name, values in request.random.values.items()
            }
            for _ in range(request.random.num_members)
        ]
    else:
        found = list(request.members or [])
    return without_repetitions(found, [])


def without_repetitions(members: list[Overrides], known: list[Overrides]) -> list[Overrides]:
    """Return the members that are not known, each once."""
    kept: list[Overrides] = []
    for member in members:
        if member not in known and member not in kept:
            kept.append(member)
    return kept


def member_request(job: JobRequest, overrides: Overrides, position: int, *, sweep_id: str) -> JobRequest:
    """Return the job of a member: with its settings in place of the job's, and the sweep's id in its metadata.

    Raises InvalidRequest naming the faulty setting.
    """
    values = copy.deepcopy(job.model_dump(mode="json", exclude_unset=True))
    for path, value in overrides.items():
        *blocks, name = path.split("/")
        place = values
        for block in blocks:
            if not isinstance(place.get(block), dict):
                place[block] = {}
            place = place[block]
        place[name] = value
    if overrides.get("dataset_version") is not None and "dataset_id" not in overrides:
        values["dataset_id"] = job.dataset_id.partition("@")[0]  # its own version instead of the job's
    request = _validated(values, position)
    if MEMBER_OF in request.metadata:
        fault = f"member {position}: the key {MEMBER_OF!r} is set to the sweep's id; choose another name"
        raise InvalidRequest(fault, errors=[FieldError(f"/job/metadata/{MEMBER_OF}", fault)])
    if len(request.metadata) > _OWN_KEYS:
        fault = f"member {position}: a sweep adds the key {MEMBER_OF!r} to its jobs; give at most {_OWN_KEYS} keys"
        raise InvalidRequest(fault, errors=[FieldError("/job/metadata", fault)])
    return _validated(values | {"metadata": {**request.metadata, MEMBER_OF: sweep_id}}, position)


def settle_metric(metric: str | None, requests: Sequence[JobRequest], first: int = 1) -> str:
    """Return the metric by which members are compared; None becomes that of the first one's method.

    Raises InvalidRequest naming a member whose method does not measure it; `first` is the first one's position.
    """
    chosen = metric or get_method(requests[0].method).compared_by
    for position, request in enumerate(requests, first):
        method = get_method(request.method)
        if chosen not in method.watched:
            choice = " or ".join(method.watched)
            fault = f"member {position}: {chosen} is not measured with the method {method.name}; use {choice}"
            raise InvalidRequest(fault, errors=[FieldError("/metric", fault)])
    return chosen


def settle_request(request: SweepRequest, requests: Sequence[JobRequest]) -> str:
    """Return the metric by which the members are compared. Raises InvalidRequest naming one that cannot be."""
    metric = settle_metric(request.metric, requests)
    if request.strategy is SweepStrategy.SUCCESSIVE_HALVING:
        require_held_out(requests)
    return metric


def require_held_out(requests: Sequence[JobRequest], first: int = 1) -> None:
    """Raise InvalidRequest naming a member that holds no rows out; `first` is the first one's position."""
    for position, request in enumerate(requests, first):
        if not holds_out(request):
            fault = (
                f"member {position} holds no rows out, and successive halving compares members on such: set "
                'validation_fraction above 0 (0.05 is the default) or validation_dataset_id, or "strategy": "all"'
            )
            raise InvalidRequest(fault, errors=[FieldError("/job/validation_fraction", fault)])


def holds_out(request: JobRequest) -> bool:
    """Whether a job measures its policy on rows that it does not train on."""
    return request.validation_dataset_id is not None or request.validation_fraction > 0


def no_best_reason(job: Mapping[str, Any], members: Sequence[Overrides]) -> str | None:
    """Return why no best member can be named; None where one may be.

    Args:
        job: the body of `POST /jobs`, as sent.
        members: the settings of each member.
    """
    for overrides in members:
        values = {**job, **overrides}
        if values.get("validation_dataset_id") is not None or values.get("validation_fraction") != 0:
            return None
    return (
        "No member holds rows out, so none can be named the best: set validation_fraction above 0 (0.05 is the "
        "default) or validation_dataset_id."
    )


def _validated(values: dict[str, Any], position: int) -> JobRequest:
    try:
        return JobRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = "/".join(str(part) for part in first["loc"] if isinstance(part, str))
        detail = f"member {position}: {where or 'the job'}: {first['msg']}"
        raise InvalidRequest(detail, errors=[FieldError("/job", detail)]) from None
