"""Findings of the doctor, and the facts of a run that it starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from core.domain.jobs.methods import method_of
from core.domain.trainer_protocol import MetricPoint

Level = Literal["info", "warning", "error"]
Value = float | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a run, reported once per job."""

    rule: str
    level: Level
    message: str
    """What was seen, with its numbers."""
    advice: str
    """What to do about it."""
    stage: str
    step: int
    evidence: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    epochs: int
    learning_rate: float
    warmup_steps: int


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    beta: float
    """0 in a job without a preference stage, whose points no rule reads it for."""
    is_lora: bool
    stages: Mapping[str, StageFacts]
    """Those that the job trains, such as `sft` (unless skipped) and `dpo`."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "RunFacts | None":
        """Extract the facts of a spec; None before every `auto` is a number."""
        trained = [stage.value for stage in method_of(spec).trained]
        stages = {name: spec.get(name) for name in trained if isinstance(spec.get(name), dict)}
        needed = ("epochs", "learning_rate", "warmup_steps")
        if any(not isinstance(stage.get(name), int | float) for stage in stages.values() if stage for name in needed):
            return None
        return cls(
            beta=float(spec.get("beta") or 0),
            is_lora=spec.get("lora") is not None,
            stages={
                name: StageFacts(
                    epochs=int(stage["epochs"]),
                    learning_rate=float(stage["learning_rate"]),
                    warmup_steps=int(stage["warmup_steps"]),
                )
                for name, stage in stages.items()
                if stage
            },
        )


class Rule(Protocol):
    """Watches the points of one run with bounded memory. Dropped once it has reported."""

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None: ...
