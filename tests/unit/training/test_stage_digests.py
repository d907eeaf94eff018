"""T5: the names of stage outputs change with all that determines them, and with nothing else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_rows import random_rows
from tiny_runs import write_data

from core.training.checkpoints import digests as stage_digests
from core.training.checkpoints.digests import reference_digest, run_digest, sft_digest
from core.training.plan import DpoPlan, LoraPlan, ReusePlan, SftPlan, TrainingPlan

SFT = SftPlan(epochs=1, learning_rate=1e-3, batch_size=4)
DPO = DpoPlan(epochs=1, learning_rate=1e-3, batch_size=4)


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    return TrainingPlan(
        base_model_dir=str(tmp_path),
        base_model_digest="base",
        train_data=write_data(tmp_path / "train", random_rows()),
        validation_data=write_data(tmp_path / "validation", random_rows()[:3]),
        sft=SFT,
        dpo=DPO,
        work_dir=str(tmp_path / "work"),
    )


def digests(plan: TrainingPlan, **changes: Any) -> tuple[str | None, str | None, str]:
    changed = dataclasses.replace(plan, **changes)
    return sft_digest(changed), reference_digest(changed), run_digest(changed)


def what_changed(plan: TrainingPlan, **changes: Any) -> list[bool]:
    """Of SFT policy, reference and run."""
    return [before != after for before, after in zip(digests(plan), digests(plan, **changes), strict=True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"base_model_digest": "other"},
        {"seed": 1},
        {"precision": "fp32"},
        {"lora": LoraPlan(rank=2)},
        {"micro_batch_tokens": 64},
        *({"sft": dataclasses.replace(SFT, **{name: value})} for name, value in {
            "epochs": 2, "learning_rate": 2e-3, "batch_size": 2, "warmup_steps": 1, "schedule": "cosine",
            "optimizer": "rmsprop", "weight_decay": 0.1, "max_grad_norm": 0.5, "betas": (0.8, 0.9), "epsilon": 1e-6,
        }.items()),
    ],
    ids=str,
)  # fmt: skip
def test_all_that_shapes_the_sft_policy_is_in_all_names(changes: dict[str, Any], plan: TrainingPlan) -> None:
    assert what_changed(plan, **changes) == [True, True, True]


def test_rows_are_in_the_names_of_what_is_made_of_them(plan: TrainingPlan, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other", random_rows()[:4])
    demonstrations = write_data(tmp_path / "demonstrations", [row[:2] for row in random_rows()], "demonstration")
    assert what_changed(plan, train_data=other) == [True, True, True]
    assert what_changed(plan, sft_data=demonstrations) == [True, True, True]
    assert what_changed(plan, validation_data=other) == [False, True, True]


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 0.5},
        {"variant": "ipo"},
        {"variant": "cdpo", "variant_options": {"label_smoothing": 0.2}},
        {"dpo": dataclasses.replace(DPO, learning_rate=2e-3, epochs=3, optimizer="rmsprop", warmup_steps=2)},
        {"evaluate_every_steps": 7},
    ],
    ids=str,
)
def test_what_only_dpo_looks_at_is_in_the_name_of_the_run_alone(changes: dict[str, Any], plan: TrainingPlan) -> None:
    assert what_changed(plan, **changes) == [False, False, True]


def test_the_batches_of_dpo_are_those_of_the_reference(plan: TrainingPlan) -> None:
    assert what_changed(plan, dpo=dataclasses.replace(DPO, batch_size=2)) == [False, True, True]
    assert reference_digest(plan, 64) != reference_digest(plan)


def test_where_and_how_fast_it_runs_changes_no_name(plan: TrainingPlan, tmp_path: Path) -> None:
    elsewhere = {
        "base_model_dir": "/elsewhere",
        "work_dir": "/work",
        "num_threads": 7,
        "checkpoint_every_steps": 3,
        "resume_from": "/checkpoint",
        "reuse": ReusePlan(sft_dir="/sft"),
        "train_data": write_data(tmp_path / "copy", random_rows()),
    }
    assert what_changed(plan, **elsewhere) == [False, False, False]


def test_versions_and_device_are_in_the_names_of_outputs(plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their last bits depend on them. A run may go on with others, and says so."""
    assert what_changed(plan, device="cuda:0") == [True, True, False]
    before = digests(plan)
    monkeypatch.setattr(torch, "__version__", "0.0.0")
    assert [a != b for a, b in zip(before, digests(plan), strict=True)] == [True, True, False]
    monkeypatch.setattr(stage_digests, "ENGINE_VERSION", -1)
    assert digests(plan)[2] != before[2]


def test_there_is_no_name_for_what_is_not_made(plan: TrainingPlan) -> None:
    assert sft_digest(dataclasses.replace(plan, sft=None)) is None
    assert reference_digest(dataclasses.replace(plan, variant="simpo")) is None
