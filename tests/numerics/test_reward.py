"""Reward models: transformers' own numbers, a closed form, packed as alone, exact resume, full and LoRA."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_rows import Row, make_stock_model
from safetensors.torch import load_file
from tiny_runs import (
    RecordingObserver,
    World,
    random_pairs,
    run,
    run_with_stops,
    tree_bytes,
    untimed,
    write_data,
)
from transformers import AutoModelForSequenceClassification

from core.domain.training import metric_names as names
from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_pairs
from core.training.failures import BadPlan
from core.training.model.capabilities import capabilities_of, remember
from core.training.model.loading import UnsupportedModel, save_policy
from core.training.model.reward_model import load_reward_model
from core.training.model.rewards import batch_rewards
from core.training.observer import Stage
from core.training.plan import EarlyStoppingPlan, LoraPlan, RewardPlan, TrainingPlan

REWARD = RewardPlan(epochs=2, learning_rate=2e-3, batch_size=4, warmup_steps=1, schedule="linear")
PADDING = 1
"""The end token pads, as in many models: it may stand at the end of a response."""
TRAIN, VALIDATION = random_pairs(11, 1), random_pairs(5, 2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def reward(world: World, work_dir: str, **changes: Any) -> TrainingPlan:
    plan = world.plan(
        work_dir, method="reward", sft=None, dpo=None, reward=REWARD, pad_token_id=PADDING, sample_prompts=()
    )
    return dataclasses.replace(plan, **changes)


def stock_rewards(model: Any, rows: list[Row], side: int) -> np.ndarray:
    """Numbers of transformers' own forward pass, one text at a time."""
    with torch.no_grad():
        found = [model(input_ids=torch.tensor([[*row[0], *row[1 + side]]])).logits[0, 0] for row in rows]
    return torch.stack(found).double().numpy()


@pytest.mark.parametrize("lora", [None, LoraPlan(rank=2, dropout=0.5)], ids=["full", "lora"])
def test_figures_are_those_of_the_published_folder_in_plain_transformers(world: World, lora: LoraPlan | None) -> None:
    observer = RecordingObserver()
    result = run(reward(world, f"figures-{'full' if lora is None else 'lora'}", lora=lora), observer)
    model = AutoModelForSequenceClassification.from_pretrained(result.policy_dir).eval()
    assert (model.num_labels, model.config.pad_token_id) == (1, PADDING)
    chosen, rejected = (stock_rewards(model, VALIDATION, side) for side in (0, 1))
    margins = chosen - rejected
    figures = result.evaluation
    assert figures[names.LOSS] == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-5)
    assert figures[names.CHOSEN_REWARDS] == pytest.approx(chosen.mean(), rel=1e-5)
    assert figures[names.REWARD_MARGINS] == pytest.approx(margins.mean(), rel=1e-5)
    assert figures[names.REWARD_ACCURACIES] == (margins > 0).mean()
    assert figures[names.REWARDS] == pytest.approx((chosen.mean() + rejected.mean()) / 2, rel=1e-5)
    losses = observer.curve("reward", "validation", names.LOSS)
    assert losses[-1] < losses[0], "the halves of the vocabulary tell the responses apart"
    checked: Any = result.summary["verification"]
    assert checked["max_reward_difference"] <= 1e-4
    assert not (result.policy_dir / "generation_config.json").exists()


def test_the_adapter_alone_is_loaded_by_peft_with_its_head(world: World) -> None:
    result = run(reward(world, "adapter", lora=LoraPlan(rank=2)), RecordingObserver())
    assert result.adapter_dir is not None
    peft = pytest.importorskip("peft")
    base = AutoModelForSequenceClassification.from_pretrained(world.base_model_dir, num_labels=1)
    base.config.pad_token_id = PADDING
    adapted = peft.PeftModel.from_pretrained(base, result.adapter_dir).eval()
    merged = AutoModelForSequenceClassification.from_pretrained(result.policy_dir).eval()
    for side in (0, 1):
        np.testing.assert_allclose(
            stock_rewards(adapted, VALIDATION, side), stock_rewards(merged, VALIDATION, side), atol=1e-5
        )
    names_of_adapter = load_file(result.adapter_dir / "adapter_model.safetensors").keys()
    assert "base_model.model.score.weight" in names_of_adapter


def test_its_stages_and_curves_are_its_own(world: World) -> None:
    observer = RecordingObserver()
    result = run(reward(world, "stages"), observer)
    stages = [stage for what, stage in observer.calls if what in ("finished", "skipped", "reused")]
    assert stages == [Stage.REWARD, Stage.EVALUATION]
    assert observer.outputs == {}
    assert (result.stage, result.step, result.samples) == (Stage.REWARD, 6, ())
    assert {point.stage for point in observer.points} == {"reward"}
    assert [p.step for p in observer.points if p.split == "validation"] == [0, 2, 4, 6]
    assert not any(name.startswith(("logps", "kl")) for point in observer.points for name in point.values)
    assert result.pairs_file is not None
    assert len(result.pairs_file.read_text().splitlines()) == len(TRAIN) + len(VALIDATION)
    assert {"held_out", "results", "verification"} == result.summary.keys() - {"published"}
    assert {ref.stage for ref in observer.checkpoints} == {Stage.REWARD}


@pytest.mark.parametrize("lora", [None, LoraPlan(rank=2)], ids=["full", "lora"])
def test_a_run_that_is_stopped_everywhere_ends_with_the_same_bytes(world: World, lora: LoraPlan | None) -> None:
    kind = "full" if lora is None else "lora"
    whole_observer = RecordingObserver()
    whole = run(reward(world, f"whole-{kind}", lora=lora), whole_observer)
    parts, observer = run_with_stops(reward(world, f"parts-{kind}", lora=lora), polls_per_leg=4)
    assert tree_bytes(parts.policy_dir) == tree_bytes(whole.policy_dir)
    assert untimed(observer.points) == untimed(whole_observer.points)
    assert parts.summary == whole.summary
    assert parts.pairs_file is not None
    assert whole.pairs_file is not None
    assert parts.pairs_file.read_bytes() == whole.pairs_file.read_bytes()


def test_micro_batches_change_nothing_but_last_bits(world: World) -> None:
    """Packed together, each pair alone: the same numbers after six steps."""
    curves = []
    for tokens in (1, 10_000):
        observer = RecordingObserver()
        run(reward(world, f"micro-{tokens}", micro_batch_tokens=tokens), observer)
        curves.append(observer.curve("reward", "train", names.LOSS) + observer.curve("reward", "train", "grad_norm"))
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


PACKED = ("llama", "qwen2", "gemma", "gemma2", "mistral", "gpt2", "gpt_neox", "phi")
ALONE = ("bloom",)


@pytest.mark.parametrize("architecture", [*PACKED, *ALONE])
def test_packed_rewards_are_those_of_each_text_alone(architecture: str, tmp_path: Path) -> None:
    """Prompts shared and not, responses that begin alike, end with padding, or are equal."""
    shared = [*range(2, 22)]
    rows: list[Row] = [
        (shared, [5, 6, 7], [5, 6, 8, 9]),
        (shared, [5, 6, 7], [30, PADDING]),
        ([40, 41], [50, PADDING, PADDING], [50]),
        ([60], [61, PADDING, 62], [61, 62, 63, 64, 65]),
    ]
    data = write_and_open(tmp_path / "rows", rows)
    make_stock_model(architecture).save_pretrained(tmp_path / "base")
    model = load_reward_model(tmp_path / "base", dtype=torch.float32, pad_token_id=PADDING, head_seed=3)
    assert capabilities_of(model).is_packable == (architecture in PACKED)
    batch = pack_pairs(data, range(len(rows)), "cpu", PADDING)
    with torch.no_grad():
        packed = batch_rewards(model, batch)
        remember(model, dataclasses.replace(capabilities_of(model), is_packable=False))
        alone = batch_rewards(model, batch)
    save_policy(model, tmp_path / "saved")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    expected = np.concatenate([stock_rewards(stock, rows, side) for side in (0, 1)])
    np.testing.assert_allclose(packed.numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_packed_are_those_of_plain_transformers(world: World, tmp_path: Path) -> None:
    model = load_reward_model(world.base_model_dir, dtype=torch.float32, pad_token_id=PADDING, head_seed=3)
    data = EncodedData.open(Path(world.train_data))
    chosen, rejected = batch_rewards(model, pack_pairs(data, range(len(TRAIN)), "cpu", PADDING)).chunk(2)
    (-torch.nn.functional.logsigmoid(chosen - rejected)).sum().backward()
    save_policy(model, tmp_path / "saved")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    for prompt, first, second in TRAIN:
        margin = stock(torch.tensor([[*prompt, *first]])).logits - stock(torch.tensor([[*prompt, *second]])).logits
        (-torch.nn.functional.logsigmoid(margin)).sum().backward()
    expected = {name: parameter.grad for name, parameter in stock.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5)


def test_a_head_that_can_learn_nothing_else_ends_at_the_closed_form(world: World, tmp_path: Path) -> None:
    """Two responses, chosen in 3 of 4 rows and in 1: the best margin is ln 3 and, centred, the sum of rewards 0."""
    prompt, good, bad = [5, 6, 7], [10, 11], [12, 13]
    rows: list[Row] = [(prompt, good, bad)] * 3 + [(prompt, bad, good)]
    settings = dataclasses.replace(
        REWARD,
        epochs=400,
        learning_rate=0.02,
        warmup_steps=0,
        batch_size=4,
        max_grad_norm=100.0,
        center_rewards_coefficient=0.01,
    )
    plan = reward(
        world,
        "closed",
        train_data=write_data(tmp_path / "rows", rows),
        validation_data=None,
        reward=settings,
        micro_batch_tokens=1000,
    )
    result = run(plan, RecordingObserver())
    model = AutoModelForSequenceClassification.from_pretrained(result.policy_dir).eval()
    chosen, rejected = (float(stock_rewards(model, rows[:1], side)[0]) for side in (0, 1))
    assert chosen - rejected == pytest.approx(math.log(3), abs=1e-3)
    assert chosen + rejected == pytest.approx(0.0, abs=1e-2)


def test_centring_changes_the_gradient_by_its_term(world: World) -> None:
    """At the first step: loss plus c times the mean squared sum."""
    first = []
    for coefficient in (0.0, 0.5):
        observer = RecordingObserver()
        settings = dataclasses.replace(REWARD, center_rewards_coefficient=coefficient)
        run(reward(world, f"centred-{coefficient}", reward=settings), observer)
        first.append(next(point.values for point in observer.points if point.split == "train"))
    plain, centred = first
    assert plain[names.REWARDS] == centred[names.REWARDS]
    assert centred[names.LOSS] > plain[names.LOSS]
    assert centred["grad_norm"] != plain["grad_norm"]


def test_early_stopping_publishes_the_best_weights(world: World) -> None:
    stopping = EarlyStoppingPlan(metric="rewards/accuracies", patience=2, restore_best=True)
    settings = RewardPlan(epochs=20, learning_rate=0.3, batch_size=4, early_stopping=stopping)
    observer = RecordingObserver()
    result = run(reward(world, "stops", reward=settings), observer)
    accuracies = observer.curve("reward", "validation", names.REWARD_ACCURACIES)
    assert len(accuracies) < 30
    assert result.evaluation[names.REWARD_ACCURACIES] == max(value for value in accuracies if value is not None)


def test_the_head_is_drawn_from_the_seed(world: World) -> None:
    heads = [
        load_reward_model(world.base_model_dir, dtype=torch.float32, pad_token_id=1, head_seed=seed).score.weight
        for seed in (3, 3, 4)
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert float(heads[0].detach().std()) == pytest.approx(0.02, rel=0.5)


def test_architectures_without_a_class_are_refused_with_advice(tmp_path: Path) -> None:
    make_stock_model("cohere").save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=r"no class for sequence classification .*\(cohere\).* Use one that has"):
        load_reward_model(tmp_path, dtype=torch.float32, pad_token_id=1, head_seed=0)


def test_a_language_model_is_no_reward_model_of_its_own(world: World) -> None:
    with pytest.raises(UnsupportedModel, match="lack 1 weights"):
        load_reward_model(world.base_model_dir, dtype=torch.float32, pad_token_id=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": None}, "reward must be given with the method reward."),
        ({"pad_token_id": None}, "pad_token_id must be given with the method reward."),
        ({"sample_prompts": ((1,),)}, "sample_prompts must be empty with the method reward."),
        ({"method": "preference"}, "dpo must be given with the method preference."),
    ],
)
def test_a_plan_has_what_its_method_needs(world: World, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadPlan) as failure:
        reward(world, "bad", **changes)
    assert failure.value.detail == message


def write_and_open(directory: Path, rows: list[Row]) -> EncodedData:
    return EncodedData.open(Path(write_data(directory, rows)))
