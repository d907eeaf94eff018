"""Results of a training stage: the trained policy, or one saved early."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from core.training.observer import JsonValue, Sample, Stage
from core.training.steps.figures import Figures


@dataclass(frozen=True)
class TrainedPolicy:
    """Result of the preference stage."""

    model: PreTrainedModel
    step: int
    evaluation: Figures
    samples: tuple[Sample, ...]
    drawn: tuple[list[int], ...]
    """One answer to each sample prompt, drawn at temperature 1."""
    summary: Mapping[str, JsonValue]
    """What the held-out pairs say of it (`core.training.measures.held_out`)."""
    pairs_file: Path


@dataclass(frozen=True)
class SavedPolicy:
    """Result when the observer asked, before DPO began, to finish with the current policy."""

    model: PreTrainedModel
    stage: Stage
    step: int
