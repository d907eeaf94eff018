"""T1, T3, T4, T5: DPO starts at ln 2 with rewards of exactly 0, against the policy as it was when DPO began."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from packed_rows import PROMISED, make_stock_model, stock_sums
from safetensors.torch import load_file
from tiny_runs import RecordingObserver, World, random_pairs, run, tree_bytes, untimed, weights, write_data
from transformers import AutoModelForCausalLM

from core.domain.training import metric_names as names
from core.training.data.packing import PackedBatch
from core.training.losses.values import PairLogps
from core.training.model.adapters import adapter_files
from core.training.model.adapters import adapters as lora
from core.training.model.loading import load_causal_lm
from core.training.observer import MetricPoint, Stage
from core.training.plan import LoraPlan, ReusePlan, TrainingPlan
from core.training.steps.pairs import PairForward, UnmovedForward

ZERO = (
    names.CHOSEN_REWARDS, names.REJECTED_REWARDS, names.REWARD_MARGINS, names.REWARD_ACCURACIES,
    names.REWARD_MARGINS_P10, names.REWARD_MARGINS_P90, names.CHOSEN_LOGPS_FELL,
)  # fmt: skip
LN2_IN_FLOAT32 = float(torch.tensor(2.0).log())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def first_points(observer: RecordingObserver) -> list[MetricPoint]:
    """Validation before DPO, and the first step."""
    dpo = [point for point in observer.points if point.stage == "dpo"]
    assert [(point.split, point.step) for point in dpo[:2]] == [("validation", 0), ("train", 1)]
    return dpo[:2]


def short(plan: TrainingPlan) -> TrainingPlan:
    """One epoch, evaluated before and after."""
    return dataclasses.replace(plan, dpo=dataclasses.replace(plan.dpo, epochs=1), evaluate_every_steps=100)


CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "no-sft": {"sft": None},
    "lora-with-dropout": {"lora": LoraPlan(rank=2, dropout=0.5)},
    "lora-no-sft": {"lora": LoraPlan(rank=2), "sft": None},
    "rows-alone": {"micro_batch_tokens": 1},
    "one-micro-batch": {"micro_batch_tokens": 10_000},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_rewards_are_exactly_zero(case: str, precision: str, world: World) -> None:
    observer = RecordingObserver()
    run(short(world.plan(f"{case}-{precision}", precision=precision, **CASES[case])), observer)
    for point in first_points(observer):
        assert point.values[names.LOSS] == LN2_IN_FLOAT32
        assert {point.values[name] for name in ZERO} == {0.0}
        assert (point.values[names.REWARD_TIES], point.values[names.GRADIENT_WEIGHT]) == (1.0, 0.5)
    assert observer.curve("dpo", "train", names.REWARD_MARGINS)[1] != 0.0, "rewards must not stay at zero"
    assert len({point.step for point in observer.points if point.split == "validation"}) == 2


@pytest.mark.parametrize(
    ("variant", "options", "loss"),
    [
        ("cdpo", {"label_smoothing": 0.2}, math.log(2)),
        ("hinge", {}, 1.0),
        ("ipo", {}, 1 / (4 * 0.1**2)),
        ("aot", {}, math.log(2)),
        ("ld_dpo", {}, math.log(2)),
    ],
)
def test_losses_at_step_zero(variant: str, options: dict[str, float], loss: float, world: World) -> None:
    observer = RecordingObserver()
    run(short(world.plan(f"loss-{variant}", variant=variant, variant_options=options, sft=None)), observer)
    for point in first_points(observer):
        assert point.values[names.LOSS] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("variant", ["dpo", "ld_dpo", "wpo", "simpo"])
def test_held_out_pairs_are_not_scored_again_before_the_first_update(
    variant: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference's log-probabilities are the policy's; what the reference lacks is computed."""
    asked: list[tuple[int, ...]] = []
    original = PairForward.policy_logps

    def noted(self: PairForward, batch: PackedBatch) -> PairLogps:
        asked.append(batch.indices)
        return original(self, batch)

    monkeypatch.setattr(PairForward, "policy_logps", noted)
    plans = [short(world.plan(f"{variant}-{how}", variant=variant)) for how in ("taken", "computed")]
    taken, computed = RecordingObserver(), RecordingObserver()
    run(plans[0], taken)
    num_taken = len(asked)
    monkeypatch.setattr(UnmovedForward, "of", lambda forward: forward)
    run(plans[1], computed)
    assert untimed(taken.points) == untimed(computed.points)
    assert (len(asked) - num_taken > num_taken) == (variant in ("dpo", "ld_dpo"))


def reference_sums(observer: RecordingObserver, split: str = "train") -> torch.Tensor:
    tensors = load_file(observer.outputs[Stage.REFERENCE].directory / "reference.safetensors")
    return tensors[f"{split}.sums"]


def assert_scored_by(model: Any, rows: list[Any], sums: torch.Tensor) -> None:
    with torch.no_grad():
        expected = torch.stack([stock_sums(model.eval(), rows, side) for side in (0, 1)], dim=1)
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)


def test_the_reference_is_the_sft_policy(world: World) -> None:
    """As transformers itself scores the responses."""
    observer = RecordingObserver()
    run(world.plan("reference-full"), observer)
    model = AutoModelForCausalLM.from_pretrained(observer.outputs[Stage.SFT].directory, dtype=torch.float32)
    assert_scored_by(model, random_pairs(11, 1), reference_sums(observer))
    assert_scored_by(model, random_pairs(5, 2), reference_sums(observer, "validation"))


def test_with_lora_the_reference_is_the_sft_policy_not_the_base(world: World) -> None:
    observer = RecordingObserver()
    run(world.plan("reference-lora", lora=LoraPlan(rank=2)), observer)
    model = load_causal_lm(world.base_model_dir, dtype=torch.float32)
    adapter_files.load_adapter(model, observer.outputs[Stage.SFT].directory)
    lora.merge(model)
    stock = make_stock_model("llama")
    with torch.no_grad():
        base_sums = torch.stack([stock_sums(stock.eval(), random_pairs(11, 1), side) for side in (0, 1)], dim=1)
    stock.load_state_dict(model.state_dict())
    assert_scored_by(stock, random_pairs(11, 1), reference_sums(observer))
    assert float((reference_sums(observer) - base_sums).abs().max()) > 0.1


def test_single_tokens_of_the_reference_add_up(world: World) -> None:
    observer = RecordingObserver()
    run(world.plan("tokens", sft=None), observer)
    tensors = load_file(observer.outputs[Stage.REFERENCE].directory / "reference.safetensors")
    for split, rows in (("train", random_pairs(11, 1)), ("validation", random_pairs(5, 2))):
        values, starts, counts = (tensors[f"{split}.{name}"] for name in ("token_logps", "starts", "counts"))
        assert counts.tolist() == [[len(chosen), len(rejected)] for _, chosen, rejected in rows]
        assert int(counts.sum()) == len(values)
        for row in range(len(rows)):
            shared = int(counts[row].min())
            for side in (0, 1):
                tokens = values[starts[row, side] : starts[row, side] + counts[row, side]]
                torch.testing.assert_close(tokens.sum(), tensors[f"{split}.sums"][row, side])
                torch.testing.assert_close(tokens[:shared].sum(), tensors[f"{split}.prefix_sums"][row, side])


def test_resuming_does_not_anchor_the_reference_anew(world: World) -> None:
    """The resumed run goes on with rewards against the old reference, bit by bit the one that was computed."""
    plan = world.plan("anchor", checkpoint_every_steps=2)
    observer = RecordingObserver()
    run(plan, observer)
    checkpoint = next(ref for ref in observer.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 4))
    kept = load_file(checkpoint.directory / "reference.safetensors")
    assert torch.equal(kept["train.sums"], reference_sums(observer))
    rest = RecordingObserver()
    resumed = world.plan("anchor-rest", checkpoint_every_steps=2, resume_from=str(checkpoint.directory))
    run(resumed, rest)
    assert not rest.outputs, "neither SFT nor reference is computed again"
    assert ("started", (Stage.REFERENCE, 5, 0)) not in rest.calls
    margins = rest.curve("dpo", "train", names.REWARD_MARGINS)
    assert margins == observer.curve("dpo", "train", names.REWARD_MARGINS)[4:]
    assert all(margins)


@pytest.mark.parametrize("changes", [{}, {"lora": LoraPlan(rank=2)}], ids=["full", "lora"])
def test_reused_stages_give_the_same_bytes(changes: dict[str, Any], world: World) -> None:
    name = "reuse-lora" if changes else "reuse-full"
    first = RecordingObserver()
    plan = world.plan(name, precision="bf16", **changes)
    whole = run(plan, first)
    reuse = ReusePlan(
        sft_dir=str(first.outputs[Stage.SFT].directory), reference_dir=str(first.outputs[Stage.REFERENCE].directory)
    )
    second = RecordingObserver()
    again = run(dataclasses.replace(plan, work_dir=plan.work_dir + "-again", reuse=reuse), second)
    assert second.calls[:2] == [("reused", Stage.SFT), ("reused", Stage.REFERENCE)]
    assert not second.outputs
    assert not second.events
    assert tree_bytes(again.policy_dir) == tree_bytes(whole.policy_dir)
    assert untimed(second.points) == untimed([point for point in first.points if point.stage == "dpo"])


def test_a_reference_is_shared_between_objectives(world: World) -> None:
    """Another variant, beta and learning rate start from the same SFT policy and reference."""
    first, second, alone = RecordingObserver(), RecordingObserver(), RecordingObserver()
    plan = world.plan("sweep")
    run(plan, first)
    other = dataclasses.replace(plan, variant="ld_dpo", beta=0.3, dpo=dataclasses.replace(plan.dpo, learning_rate=2e-3))
    reuse = ReusePlan(
        sft_dir=str(first.outputs[Stage.SFT].directory), reference_dir=str(first.outputs[Stage.REFERENCE].directory)
    )
    shared = run(dataclasses.replace(other, work_dir=plan.work_dir + "-shared", reuse=reuse), second)
    expected = run(dataclasses.replace(other, work_dir=plan.work_dir + "-alone"), alone)
    assert not second.events
    assert tree_bytes(shared.policy_dir) == tree_bytes(expected.policy_dir)


def test_outputs_of_other_inputs_are_not_reused(world: World) -> None:
    first, second = RecordingObserver(), RecordingObserver()
    plan = world.plan("other")
    run(plan, first)
    reuse = ReusePlan(
        sft_dir=str(first.outputs[Stage.SFT].directory), reference_dir=str(first.outputs[Stage.REFERENCE].directory)
    )
    assert plan.sft is not None
    changed = dataclasses.replace(plan, sft=dataclasses.replace(plan.sft, learning_rate=2e-3))
    reusing = run(dataclasses.replace(changed, work_dir=plan.work_dir + "-2", reuse=reuse), second)
    expected = run(dataclasses.replace(changed, work_dir=plan.work_dir + "-3"), RecordingObserver())
    assert second.events == [("warning", "reuse_refused")] * 2
    assert tree_bytes(reusing.policy_dir) == tree_bytes(expected.policy_dir)


def test_the_next_round_starts_from_the_tuned_policy(world: World) -> None:
    """Iterative DPO: the artifact of one run is the base model, and the reference, of the next."""
    first = run(world.plan("round-1"), RecordingObserver())
    observer = RecordingObserver()
    pairs = write_data(world.directory / "round-2-data", random_pairs(7, 9))
    plan = world.plan(
        "round-2", base_model_dir=str(first.policy_dir), base_model_digest="round-1", sft=None, train_data=pairs
    )
    second = run(plan, observer)
    for point in first_points(observer):
        assert point.values[names.REWARD_MARGINS] == 0.0
    model = AutoModelForCausalLM.from_pretrained(first.policy_dir, dtype=torch.float32)
    assert_scored_by(model, random_pairs(7, 9), reference_sums(observer))
    assert any(not torch.equal(tensor, weights(first)[name]) for name, tensor in weights(second).items())


@pytest.mark.parametrize("architecture", PROMISED)
@pytest.mark.parametrize("lora", [None, LoraPlan(rank=2, dropout=0.5)], ids=["full", "lora"])
def test_base_models_with_dropout_start_at_zero_too(architecture: str, lora: LoraPlan | None, world: World) -> None:
    """Dropout of 0.2 wherever the configuration has one, and in the adapter (T2)."""
    base = world.directory / f"base-{architecture}"
    make_stock_model(architecture).save_pretrained(base)
    assert "0.2" in (base / "config.json").read_text()
    plan = world.plan(f"{architecture}-{lora is not None}", base_model_dir=str(base), lora=lora, sft=None)
    observer = RecordingObserver()
    run(dataclasses.replace(short(plan), dpo=dataclasses.replace(plan.dpo, epochs=1, batch_size=11)), observer)
    for point in first_points(observer):
        assert point.values[names.LOSS] == LN2_IN_FLOAT32
        assert {point.values[name] for name in ZERO} == {0.0}
    assert observer.curve("dpo", "validation", names.REWARD_MARGINS)[-1] != 0.0
