"""Plans: the strict JSON form and the checks."""

import dataclasses
import json

import pytest

from core.training.failures import BadPlan
from core.training.plan import DpoPlan, EarlyStoppingPlan, LoraPlan, ReusePlan, RewardPlan, SftPlan, TrainingPlan


def full_plan() -> TrainingPlan:
    """Every optional part present, no default value where another is possible."""
    return TrainingPlan(
        base_model_dir="base",
        base_model_digest="abc",
        train_data="train",
        validation_data="validation",
        pause_at_share=0.25,
        score_train_rows=False,
        sft_data="demonstrations",
        sft=SftPlan(epochs=2, learning_rate=1e-4, batch_size=8, warmup_steps=3, schedule="cosine"),
        dpo=DpoPlan(
            epochs=1,
            learning_rate=5e-7,
            batch_size=64,
            optimizer="rmsprop",
            betas=(0.8, 0.95),
            early_stopping=EarlyStoppingPlan(metric="rewards/margins", patience=2, min_delta=0.01),
        ),
        variant="ipo",
        beta=0.3,
        variant_options={"normalize": "mean", "weight": 0.5},
        lora=LoraPlan(rank=8, target_modules=("q_proj", "v_proj")),
        artifact_dtype="bfloat16",
        precision="fp32",
        device="cuda:0",
        num_threads=4,
        num_devices=2,
        layout="hybrid",
        seed=2**63 - 1,
        group_by_prompt=True,
        sample_prompts=((1, 2), (3,)),
        eos_token_ids=(2,),
        work_dir="work",
        resume_from="checkpoint",
        reuse=ReusePlan(sft_dir="sft", reference_dir=None),
    )


def smallest_plan() -> TrainingPlan:
    return TrainingPlan(
        base_model_dir="base",
        train_data="train",
        sft=None,
        dpo=DpoPlan(epochs=1, learning_rate=1e-6, batch_size=4),
        work_dir="work",
    )


def supervised_plan() -> TrainingPlan:
    return dataclasses.replace(smallest_plan(), method="supervised", sft=full_plan().sft, dpo=None)


def reward_plan() -> TrainingPlan:
    settings = RewardPlan(epochs=2, learning_rate=1e-5, batch_size=8, center_rewards_coefficient=0.01)
    return dataclasses.replace(smallest_plan(), method="reward", dpo=None, reward=settings, pad_token_id=2)


@pytest.mark.parametrize(
    "plan",
    [full_plan(), smallest_plan(), supervised_plan(), reward_plan()],
    ids=["full", "smallest", "supervised", "reward"],
)
def test_json_round_trip(plan: TrainingPlan) -> None:
    assert TrainingPlan.from_json(plan.to_json()) == plan


def test_every_field_survives_the_round_trip() -> None:
    """A field left out of the JSON would come back as its default: none of the full plan's values is one."""
    full, default = full_plan(), smallest_plan()
    same = {f.name for f in dataclasses.fields(full) if getattr(full, f.name) == getattr(default, f.name)}
    assert same == {
        "base_model_dir", "train_data", "work_dir", "evaluate_every_steps", "checkpoint_every_steps",
        "micro_batch_tokens", "max_new_tokens", "method", "reward", "pad_token_id",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["", "dpo", "lora", "dpo.early_stopping", "reuse"])
def test_unknown_key_is_refused(path: str) -> None:
    values = json.loads(full_plan().to_json())
    place = values
    for part in path.split(".") if path else []:
        place = place[part]
    place["surprise"] = 1
    with pytest.raises(BadPlan, match="surprise"):
        TrainingPlan.from_json(json.dumps(values))


def test_missing_key_is_refused() -> None:
    values = json.loads(full_plan().to_json())
    del values["dpo"]["learning_rate"]
    with pytest.raises(BadPlan, match="learning_rate"):
        TrainingPlan.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "1"), ("seed", 1.5), ("beta", "0.1"), ("precision", "fp16"), ("sample_prompts", [["a"]]), ("sft", 3)],
)
def test_value_of_another_type_is_refused(name: str, value: object) -> None:
    values = json.loads(full_plan().to_json()) | {name: value}
    with pytest.raises(BadPlan, match=name):
        TrainingPlan.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta", 0.0), ("device", "tpu"), ("seed", -1), ("num_threads", 0), ("micro_batch_tokens", 0)],
)
def test_value_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(BadPlan, match=name):
        dataclasses.replace(smallest_plan(), **{name: value})


def test_stage_out_of_range_is_refused() -> None:
    with pytest.raises(BadPlan, match=r"dpo\.learning_rate"):
        dataclasses.replace(smallest_plan(), dpo=DpoPlan(epochs=1, learning_rate=0.0, batch_size=4))
