"""The doctor on real small runs: every rule on one that provokes it, and none on a healthy one."""

import random
from pathlib import Path
from typing import Any

import pytest
from packed_rows import VOCABULARY, Row
from safetensors.torch import load_file, save_file
from tiny_runs import RecordingObserver, World, random_pairs, run, write_data

from core.domain.doctor.doctor import NON_FINITE, Doctor, all_rules
from core.domain.doctor.findings import Finding, RunFacts, StageFacts
from core.domain.doctor.rules import LearningRateFar
from core.domain.jobs import presets
from core.domain.trainer_protocol import MetricPoint
from core.domain.training import metric_names as names
from core.training.failures import NonFiniteLoss
from core.training.plan import DpoPlan, LoraPlan, SftPlan, TrainingPlan

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def dpo(**changes: Any) -> DpoPlan:
    return DpoPlan(**({"epochs": 1, "learning_rate": 1e-3, "batch_size": 4} | changes))


def facts_of(plan: TrainingPlan) -> RunFacts:
    stages = {"sft": plan.sft, "dpo": plan.dpo}
    return RunFacts(
        beta=plan.beta,
        is_lora=plan.lora is not None,
        stages={
            name: StageFacts(epochs=stage.epochs, learning_rate=stage.learning_rate, warmup_steps=stage.warmup_steps)
            for name, stage in stages.items()
            if stage is not None
        },
    )


def diagnose(
    world: World, directory: Path, rows: list[Row], *, validation: list[Row] | None = None, **changes: Any
) -> dict[str, Finding]:
    """Trains, and hears what the doctor says to the points, by rule."""
    settings: dict[str, Any] = {"sft": None, "evaluate_every_steps": 100, "sample_prompts": ()} | changes
    if validation is not None:
        settings["validation_data"] = write_data(directory / "validation", validation)
    plan = world.plan(str(directory / "run"), train_data=write_data(directory / "rows", rows), **settings)
    doctor, observer = Doctor(facts_of(plan)), RecordingObserver()
    try:
        run(plan, observer)
    except NonFiniteLoss as failure:
        findings = _hear(doctor, observer.points) + doctor.hear_failure(failure.failure_code)
    else:
        findings = _hear(doctor, observer.points)
    assert len({(finding.rule, finding.stage) for finding in findings}) == len(findings), "each speaks once"
    for finding in findings:
        assert finding.message
        assert finding.advice
        assert finding.evidence
    return {finding.rule: finding for finding in findings}


def _hear(doctor: Doctor, points: list[MetricPoint]) -> list[Finding]:
    return [finding for point in points for finding in doctor.observe(point)]


def test_a_healthy_run_is_left_alone(world: World, tmp_path: Path) -> None:
    """LoRA at rates near the presets: the loss falls, slowly."""
    changes = {"sft": SftPlan(epochs=1, learning_rate=1e-3, batch_size=4), "lora": LoraPlan(rank=8, alpha=16)}
    plan = dpo(learning_rate=4e-4)
    assert diagnose(world, tmp_path, random_pairs(120, 3), dpo=plan, evaluate_every_steps=10, **changes) == {}


def test_a_loss_that_stays_at_ln_2(world: World, tmp_path: Path) -> None:
    found = diagnose(world, tmp_path, random_pairs(88, 3), dpo=dpo(learning_rate=1e-8))
    assert found.keys() == {"loss-stuck", "learning-rate-far-from-presets"}
    assert found["loss-stuck"].step == 20
    assert found["loss-stuck"].evidence["mean_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert "hardly anything" in found["learning-rate-far-from-presets"].advice


def test_a_gradient_of_zero(world: World, tmp_path: Path) -> None:
    """Past a margin of 1 the hinge loss has no slope."""
    plan = dpo(learning_rate=1e-2, epochs=2)
    found = diagnose(world, tmp_path, random_pairs(60, 3), variant="hinge", beta=1.0, dpo=plan)
    assert found["zero-gradient"].evidence["grad_norm"] == 0.0


def test_chosen_responses_that_become_unlikely(world: World, tmp_path: Path) -> None:
    found = diagnose(world, tmp_path, random_pairs(30, 3), dpo=dpo(learning_rate=0.2, epochs=3))
    evidence = found["chosen-logps-collapse"].evidence
    assert (evidence["mean_drop_nats"] or 0) > 5
    assert (evidence["share_fallen"] or 0) >= 0.75
    assert "fall apart" in found["learning-rate-far-from-presets"].advice


def test_a_policy_that_is_far_from_its_reference(world: World, tmp_path: Path) -> None:
    found = diagnose(world, tmp_path, random_pairs(60, 3), dpo=dpo(learning_rate=2e-2), evaluate_every_steps=5)
    assert (found["kl-blow-up"].evidence["kl_per_token"] or 0) > 1


def test_pairs_that_have_nothing_left_to_teach(world: World, tmp_path: Path) -> None:
    found = diagnose(world, tmp_path, random_pairs(24, 3), beta=1.0, dpo=dpo(learning_rate=3e-3, epochs=8))
    saturated = found["accuracy-saturated"]
    assert saturated.level == "info"
    assert (saturated.evidence["fraction"] or 1) <= 0.8


def test_margins_that_are_length(world: World, tmp_path: Path) -> None:
    """All responses repeat one token; only their lengths differ."""
    rng = random.Random(0)
    rows: list[Row] = []
    for _ in range(35):
        short = rng.randrange(1, 8)
        rows.append(([rng.randrange(2, VOCABULARY)], [5] * (short + rng.randrange(1, 8)), [5] * short))
    found = diagnose(world, tmp_path, rows, dpo=dpo(batch_size=5, epochs=3))
    assert (found["length-exploitation"].evidence["mean_correlation"] or 0) > 0.8


def test_validation_that_turns_away_from_training(world: World, tmp_path: Path) -> None:
    """Held out is the contrary of what is taught."""
    rows = random_pairs(16, 5)
    contrary = [(prompt, rejected, chosen) for prompt, chosen, rejected in rows]
    plan = dpo(learning_rate=3e-3, epochs=4)
    found = diagnose(world, tmp_path, rows, validation=contrary, dpo=plan, evaluate_every_steps=3)
    evidence = found["validation-divergence"].evidence
    assert (evidence["loss"] or 0) > (evidence["best_loss"] or 0) * 1.1


def test_a_loss_that_is_no_number(world: World, tmp_path: Path) -> None:
    """A broken row of the embedding, which only the third step meets."""
    base = tmp_path / "base"
    base.mkdir()
    for path in Path(world.base_model_dir).iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][96] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    found = diagnose(world, tmp_path, random_pairs(8, 3), base_model_dir=str(base), dpo=dpo())
    assert found[NON_FINITE].level == "error"


def test_points_that_come_twice_are_heard_once() -> None:
    facts = RunFacts(beta=0.1, is_lora=False, stages={"dpo": StageFacts(epochs=1, learning_rate=5e-6, warmup_steps=0)})
    doctor = Doctor(facts)
    values: dict[str, float | None] = {names.GRAD_NORM: 0.0}
    points = [MetricPoint(stage="dpo", split="train", step=step, epoch=0.1, values=values) for step in range(1, 6)]
    for point in points[:4]:
        for _ in range(3):
            assert doctor.observe(point) == []
    assert [finding.rule for finding in doctor.observe(points[4])] == ["zero-gradient"]


def test_presets_are_those_of_the_presets() -> None:
    sizes = (10**8, 10**9, 10**10)
    for is_lora in (False, True):
        for stage, preset in (("sft", presets.sft), ("dpo", presets.dpo)):
            rates = [preset(size, 1000, is_lora=is_lora)["learning_rate"] for size in sizes]
            assert LearningRateFar.presets[stage, is_lora] == pytest.approx((min(rates), max(rates)))


def test_every_rule_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "guide" / "doctor.md").read_text(encoding="utf-8")
    for name in {NON_FINITE, *(rule.name for rule in all_rules())}:
        assert f"`{name}`" in page
