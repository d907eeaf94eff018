"""Digests that the first release (7b06ab9) gave: unfinished jobs keep their checkpoints, finished stages their names.

A change here means that every interrupted job of an installation loses its checkpoints at the upgrade.
"""

import dataclasses
from pathlib import Path

import pytest
from tiny_runs import write_data

from core.domain.jobs.released_fields import RELEASED_FIELDS
from core.training.checkpoints import digests
from core.training.plan import DpoPlan, EarlyStoppingPlan, LoraPlan, SftPlan, TrainingPlan

ROWS = [((1, 2, 3), (4, 5, 6), (7, 8)), ((9, 10), (11,), (12, 13, 14)), ((1,), (2, 3), (4,))]
DPO = DpoPlan(epochs=1, learning_rate=1e-3, batch_size=4)
SFT = SftPlan(epochs=1, learning_rate=1e-3, batch_size=4, schedule="cosine")
GOLDEN = {
    "smallest": (
        None,
        "6e7747e49f515f46a3070a952d8ebf0b7d1a6cff89fbc8f93c6c358899c3c9be",
        "0d6115c0af6298be5a255a78872183f616e35c23eaed3389a20ca7552a8e33e7",
    ),
    "lora": (
        "3fbeda041626f2160d0a79dddf28765a35255bccf83c3317eab98b632685d814",
        "f13a66dbb3c6099e7badfe8326666ffbd46e1e592cf62d57db7ea73fd4472482",
        "114c47e4bffb1a08729a05f98f2eeade325aa156ad376ab39bccb392ac15ab1a",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterDpoPlan(DpoPlan):
    label_noise: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterPlan(TrainingPlan):
    """A version with one more field in the plan and in a stage."""

    shuffles: bool = True


@pytest.fixture(autouse=True)
def same_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    # By name: importing peft puts another module object in transformers' place.
    monkeypatch.setattr("core.training.checkpoints.digests.torch.__version__", "T")
    monkeypatch.setattr("core.training.checkpoints.digests.transformers.__version__", "F")


@pytest.fixture
def plans(tmp_path: Path) -> dict[str, TrainingPlan]:
    train = write_data(tmp_path / "train", ROWS)
    smallest = TrainingPlan(
        base_model_dir="base", base_model_digest="b", train_data=train, sft=None, dpo=DPO, work_dir="w"
    )
    lora = dataclasses.replace(
        smallest,
        validation_data=write_data(tmp_path / "validation", ROWS[:1]),
        sft=SFT,
        dpo=dataclasses.replace(DPO, early_stopping=EarlyStoppingPlan()),
        lora=LoraPlan(rank=4, target_modules=("q_proj",)),
        sample_prompts=((1, 2),),
        eos_token_ids=(2,),
    )
    return {"smallest": smallest, "lora": lora}


def names(plan: TrainingPlan) -> tuple[str | None, str | None, str]:
    return digests.sft_digest(plan), digests.reference_digest(plan), digests.run_digest(plan)


def later(plan: TrainingPlan, *, shuffles: bool = True, label_noise: float = 0.0) -> LaterPlan:
    values = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan)}
    stage = {item.name: getattr(plan.dpo, item.name) for item in dataclasses.fields(plan.dpo)}
    return LaterPlan(**values | {"dpo": LaterDpoPlan(**stage, label_noise=label_noise), "shuffles": shuffles})


@pytest.mark.parametrize("name", GOLDEN)
def test_digests_are_those_of_the_first_release(name: str, plans: dict[str, TrainingPlan]) -> None:
    assert names(plans[name]) == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_later_field_changes_no_digest_until_it_is_used(
    name: str, plans: dict[str, TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RELEASED_FIELDS, "LaterPlan", RELEASED_FIELDS["TrainingPlan"])
    monkeypatch.setitem(RELEASED_FIELDS, "LaterDpoPlan", RELEASED_FIELDS["DpoPlan"])
    assert names(later(plans[name])) == GOLDEN[name]
    assert digests.run_digest(later(plans[name], shuffles=False)) != GOLDEN[name][2]
    assert digests.run_digest(later(plans[name], label_noise=0.1)) != GOLDEN[name][2]
