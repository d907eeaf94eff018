"""The trainer that the jobs of a fault run are given: what it needs, and what must come out undisturbed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from backends import make_base_model
from toy_jobs import ROWS, TOY_COMMAND
from toy_trainer import STAGES, Script, expected_weights

from core.domain.training.metric_names import TIMING

if TYPE_CHECKING:
    from faults.grounds import Grounds

Point = tuple[str, str, int, tuple[tuple[str, float | None], ...]]
"""Stage, split, step, and the values that are equal in every undisturbed run, by name."""


@dataclass(frozen=True)
class Expected:
    """What an undisturbed run comes to."""

    weights_sha256: str
    curve: list[Point]


def curve_point(stage: str, split: str, step: int, values: Mapping[str, float | None]) -> Point:
    return stage, split, step, tuple(sorted((name, value) for name, value in values.items() if name not in TIMING))


class Trainer(Protocol):
    name: ClassVar[str]
    command: ClassVar[Sequence[str] | None]
    """What workers start; None: what they start by themselves."""
    times: ClassVar[Mapping[str, Any]]
    """Settings over `faults.world.TIMES`."""
    pace: ClassVar[float]
    """How many times longer its jobs take than those of the toy."""
    is_costly: ClassVar[bool]
    """A start takes seconds of a processor: fewer jobs a run, and several faults upon each."""
    points: ClassVar[Sequence[str]]
    """Failpoints in its own code."""
    scratch_size: ClassVar[str]
    """Of a disk on which it can start, and cannot write a checkpoint."""
    database_size: ClassVar[str]
    """Of a disk that holds a job of it in SQLite, until it is filled with other things."""
    rows: ClassVar[bytes]
    """Of the dataset, JSON lines."""

    def make_base_model(self, grounds: "Grounds", folder: Path) -> None: ...

    def fields(self, script: Script) -> dict[str, Any]:
        """Of the request that submits a job which behaves like this."""

    def crashes(self, script: Script, folder: Path) -> str:
        """Failpoints at which it dies as the script wants, if the script alone does not do it; notes in the folder."""

    def expected(self, grounds: "Grounds", script: Script) -> Expected: ...


class Toy:
    name: ClassVar[str] = "toy"
    command: ClassVar[Sequence[str] | None] = TOY_COMMAND
    times: ClassVar[Mapping[str, Any]] = {}
    pace: ClassVar[float] = 1.0
    is_costly: ClassVar[bool] = False
    points: ClassVar[Sequence[str]] = ()
    scratch_size: ClassVar[str] = "64k"
    database_size: ClassVar[str] = "3m"
    rows: ClassVar[bytes] = ROWS

    def make_base_model(self, _grounds: "Grounds", folder: Path) -> None:
        make_base_model(folder)

    def fields(self, script: Script) -> dict[str, Any]:
        return {"metadata": {"toy": json.dumps(asdict(script))}}

    def crashes(self, _script: Script, _folder: Path) -> str:
        return ""

    def expected(self, _grounds: "Grounds", script: Script) -> Expected:
        chain, curve = hashlib.sha256(ROWS).digest(), []
        for stage in STAGES:
            for step in range(1, script.steps + 1):
                chain = hashlib.sha256(chain + f"{stage}{step}".encode()).digest()
                curve.append(curve_point(stage, "train", step, {"loss": int.from_bytes(chain[:4]) / 2**32}))
        return Expected(hashlib.sha256(expected_weights(ROWS, script)).hexdigest(), curve)


TOY = Toy()
