"""Supervised runs: the weights of SFT in a preference run, held-out figures beside the base model's, exact resume."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_rows import stock_token_logps
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
from transformers import AutoModelForCausalLM

from core.domain.jobs.methods import METHODS
from core.domain.training import metric_names as names
from core.training.failures import BadPlan
from core.training.measures.token_figures import token_figures
from core.training.methods import registry
from core.training.observer import Stage
from core.training.plan import EarlyStoppingPlan, LoraPlan, SftPlan, TrainingPlan
from core.training.steps.sft import SftColumn

SFT = SftPlan(epochs=2, learning_rate=2e-3, batch_size=4, warmup_steps=1, schedule="cosine")
TRAIN, VALIDATION = random_pairs(11, 1), random_pairs(5, 2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("world"))
    demonstrations = [(prompt, chosen, []) for prompt, chosen, _ in TRAIN]
    write_data(world.directory / "demos", demonstrations, kind="demonstration")
    held_out = [(prompt, chosen, []) for prompt, chosen, _ in VALIDATION]
    write_data(world.directory / "held-out", held_out, kind="demonstration")
    return world


def supervised(world: World, work_dir: str, **changes: Any) -> TrainingPlan:
    plan = world.plan(
        work_dir,
        method="supervised",
        train_data=str(world.directory / "demos"),
        validation_data=str(world.directory / "held-out"),
        sft=SFT,
        dpo=None,
    )
    return dataclasses.replace(plan, **changes)


def test_the_catalogue_and_the_engine_name_the_same_methods() -> None:
    assert registry.METHODS.keys() == METHODS.keys()


@pytest.mark.parametrize("lora", [None, LoraPlan(rank=2, dropout=0.5)], ids=["full", "lora"])
def test_its_weights_are_those_of_sft_before_dpo(world: World, lora: LoraPlan | None) -> None:
    """Evaluations between the steps, without the adapter's dropout, change nothing."""
    kind = "full" if lora is None else "lora"
    observer = RecordingObserver()
    run(world.plan(f"before-dpo-{kind}", sft=SFT, lora=lora), observer)
    result = run(supervised(world, f"alone-{kind}", lora=lora), RecordingObserver())
    sft = observer.outputs[Stage.SFT].directory
    kept = "model.safetensors" if lora is None else "adapter_model.safetensors"
    folder = result.policy_dir if lora is None else result.adapter_dir
    assert folder is not None
    before, alone = load_file(sft / kept), load_file(folder / kept)
    assert before.keys() == alone.keys()
    assert all(torch.equal(before[name], alone[name]) for name in before)


def test_its_stages_and_curves_are_its_own(world: World) -> None:
    observer = RecordingObserver()
    result = run(supervised(world, "stages"), observer)
    assert [stage for what, stage in observer.calls if what in ("finished", "skipped", "reused")] == [
        Stage.SFT,
        Stage.EVALUATION,
    ]
    assert observer.outputs == {}, "nothing starts from it in this run"
    assert (result.stage, result.step, result.pairs_file) == (Stage.SFT, 6, None)
    assert {point.stage for point in observer.points} == {"sft"}
    assert not any(name.startswith(("rewards", "logps", "kl")) for point in observer.points for name in point.values)
    assert [p.step for p in observer.points if p.split == "validation"] == [0, 2, 4, 6]
    assert {ref.stage for ref in observer.checkpoints} == {Stage.SFT}
    assert len(result.samples) == 1
    assert "drift" in result.summary
    assert not {"held_out", "sft_digest"} & result.summary.keys()


def test_held_out_figures_are_those_of_plain_transformers(world: World) -> None:
    result = run(supervised(world, "figures"), RecordingObserver())
    found: Any = result.summary["results"]
    for folder, figures in ((world.base_model_dir, found["base_model"]), (result.policy_dir, found["held_out"])):
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            logps = [stock_token_logps(model, prompt, chosen) for prompt, chosen, _ in VALIDATION]
            hits = [hits_of(model, prompt, chosen) for prompt, chosen, _ in VALIDATION]
        num_tokens = sum(len(row) for row in logps)
        loss = -sum(float(row.sum()) for row in logps) / num_tokens
        assert (figures["num_rows"], figures["num_tokens"]) == (5, num_tokens)
        assert figures["loss"]["value"] == pytest.approx(loss, rel=1e-5)
        assert figures["perplexity"]["value"] == pytest.approx(math.exp(loss), rel=1e-5)
        assert figures["token_accuracy"]["value"] == pytest.approx(sum(hits) / num_tokens)
        assert figures["loss"]["low"] < loss < figures["loss"]["high"]
    gain = found["base_model"]["loss"]["value"] - found["held_out"]["loss"]["value"]
    assert found["better_than_base_model"]["loss"]["value"] == pytest.approx(gain)
    assert gain > 0
    assert found["training"]["token_accuracy"] > 0
    assert result.evaluation == pytest.approx(
        {
            names.LOSS: found["held_out"]["loss"]["value"],
            "mean_token_accuracy": found["held_out"]["token_accuracy"]["value"],
        }
    )


def hits_of(model: Any, prompt: list[int], response: list[int]) -> int:
    logits = model(torch.tensor([[*prompt, *response]])).logits[0]
    predicted = logits[len(prompt) - 1 : -1].argmax(-1)
    return int((predicted == torch.tensor(response)).sum())


def test_a_run_that_is_stopped_everywhere_ends_with_the_same_bytes(world: World) -> None:
    lora = LoraPlan(rank=2, dropout=0.3)
    whole_observer = RecordingObserver()
    whole = run(supervised(world, "whole", lora=lora), whole_observer)
    parts, observer = run_with_stops(supervised(world, "parts", lora=lora), polls_per_leg=4)
    assert tree_bytes(parts.policy_dir) == tree_bytes(whole.policy_dir)
    assert untimed(observer.points) == untimed(whole_observer.points)
    assert parts.summary["results"] == whole.summary["results"], "the base model's figures come from a checkpoint"
    assert parts.samples == whole.samples


def test_early_stopping_publishes_the_best_policy(world: World) -> None:
    stopping = EarlyStoppingPlan(patience=2, restore_best=True)
    wild = SftPlan(epochs=20, learning_rate=0.3, batch_size=4, early_stopping=stopping)
    observer = RecordingObserver()
    result = run(supervised(world, "stops", sft=wild), observer)
    losses = observer.curve("sft", "validation", names.LOSS)
    assert len(losses) < 30
    assert result.evaluation[names.LOSS] == min(loss for loss in losses if loss is not None)
    assert ("info", "best_restored") in observer.events


def test_saving_on_request_publishes_what_is_there(world: World) -> None:
    observer = RecordingObserver(lambda seen: "save" if len(seen.points) > 3 else "none")
    result = run(supervised(world, "saved"), observer)
    assert result.stage is Stage.SFT
    assert 0 < result.step < 6
    assert result.evaluation[names.LOSS] is not None


def test_without_held_out_rows_nothing_is_measured_on_them(world: World) -> None:
    result = run(supervised(world, "no-validation", validation_data=None), RecordingObserver())
    found: Any = result.summary["results"]
    assert (found["held_out"], found["base_model"], found["better_than_base_model"]) == (None, None, None)
    assert found["training"]["loss"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sft": None}, "sft must be given with the method supervised."),
        ({"method": "preference"}, "dpo must be given with the method preference."),
        ({"method": "guessing"}, "method must be one of preference, supervised, reward."),
    ],
)
def test_a_plan_has_the_stages_of_its_method(world: World, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadPlan) as failure:
        supervised(world, "bad", **changes)
    assert failure.value.detail == message


def test_intervals_treat_rows_as_clusters() -> None:
    """Over draws of rows, the interval holds the true loss about as often as it says."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        counts = rng.integers(1, 30, 60).astype(float)
        level = rng.normal(2.0, 0.5, 60)  # of a row: its tokens go together
        values = np.zeros((len(SftColumn), 60))
        values[SftColumn.NUM_TOKENS] = counts
        values[SftColumn.LOSS] = level * counts
        loss: Any = token_figures(values)["loss"]
        inside += loss["low"] < 2.0 < loss["high"]
    assert 0.90 <= inside / 400 <= 0.98


def test_one_row_has_no_interval(tmp_path: Path) -> None:
    loss: Any = token_figures(np.array([[2.0], [4.0], [1.0]]))["loss"]
    assert loss == {"value": 0.5, "low": None, "high": None}
