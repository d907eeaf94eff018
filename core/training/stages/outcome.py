"""Results of a training stage: the trained policy, or one saved early."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from core.training.model.policies import PolicySource
from core.training.observer import JsonValue, Sample, Stage
from core.training.steps.figures import Figures


@dataclass(frozen=True, kw_only=True)
class TrainedPolicy:
    """Result of the last training stage."""

    model: PreTrainedModel
    stage: Stage
    step: int
    evaluation: Figures
    samples: tuple[Sample, ...]
    drawn: tuple[list[int], ...]
    """One answer to each sample prompt, drawn at temperature 1."""
    summary: Mapping[str, JsonValue]
    """What the held-out rows say of it (`core.training.measures`)."""
    pairs_file: Path | None
    """What became of every pair; None where the method compares none."""


@dataclass(frozen=True)
class SavedPolicy:
    """Result when the observer asked, before the last training stage began, to finish with the current policy."""

    model: PreTrainedModel
    stage: Stage
    step: int


@dataclass(frozen=True)
class Outcome:
    """What a method ends with."""

    policy: TrainedPolicy | SavedPolicy
    start: PolicySource | None = None
    """The policy that its last training stage began with, which drift is measured against; None: not at hand."""
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    """What the summary says besides."""
