"""Whole runs: what is learnt and left behind, stops, early stopping, lack of memory and other failures."""

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_rows import VOCABULARY
from safetensors.torch import load_file, save_file
from tiny_runs import (
    RecordingObserver,
    World,
    random_pairs,
    run,
    stop_at_poll,
    tree_bytes,
    untimed,
    weights,
    write_data,
)
from transformers import AutoModelForCausalLM

from core.domain.errors import DomainError
from core.domain.jobs.failure_codes import FailureCode
from core.domain.training import metric_names as names
from core.training.checkpoints import files
from core.training.failures import (
    BadBaseModel,
    BadCheckpoint,
    BadData,
    BadPlan,
    DiskFull,
    GpuOutOfMemory,
    HostOutOfMemory,
    NonFiniteLoss,
    TrainingFailure,
    TrainingStopped,
)
from core.training.model import policies
from core.training.model.adapters import adapter_files
from core.training.model.adapters.merging import merged_state_dict
from core.training.model.loading import load_causal_lm
from core.training.observer import Stage
from core.training.plan import DpoPlan, EarlyStoppingPlan, LoraPlan
from core.training.steps import pairs as dpo
from core.training.steps import reference_pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def base_weights(world: World) -> dict[str, torch.Tensor]:
    return load_file(Path(world.base_model_dir) / "model.safetensors")


def test_dpo_learns_to_prefer_the_chosen_responses(world: World) -> None:
    """Chosen responses keep to one half of the vocabulary, which generalises to the validation pairs."""
    observer = RecordingObserver()
    train = write_data(world.directory / "many", random_pairs(60, 3))
    plan = world.plan("learns", train_data=train, micro_batch_tokens=320)
    plan = dataclasses.replace(plan, dpo=DpoPlan(epochs=4, learning_rate=3e-3, batch_size=10), evaluate_every_steps=100)
    result = run(plan, observer)
    assert result.evaluation[names.REWARD_ACCURACIES] == 1.0
    assert result.evaluation[names.LOSS] is not None
    assert result.evaluation[names.LOSS] < 0.5
    assert result.num_validation_pairs == 5
    margins = observer.curve("dpo", "validation", names.REWARD_MARGINS)
    assert margins[0] == 0.0
    assert margins[-1] == result.evaluation[names.REWARD_MARGINS]


def test_the_artifact_is_the_policy_that_was_evaluated(world: World) -> None:
    observer = RecordingObserver()
    result = run(world.plan("artifact"), observer)
    last = next(ref for ref in observer.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 6))
    masters = load_file(last.directory / "policy.safetensors")
    saved = weights(result)
    assert masters.keys() <= saved.keys()
    assert all(torch.equal(masters[name], saved[name]) for name in masters)
    model = AutoModelForCausalLM.from_pretrained(result.policy_dir)
    answer = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, eos_token_id=VOCABULARY)
    assert result.samples[0].policy == tuple(answer[0, 3:].tolist())
    assert observer.answers == [(6, result.samples)]


def test_lora_trains_the_adapter_and_nothing_else(world: World) -> None:
    result = run(world.plan("lora", lora=LoraPlan(rank=2, target_modules=("q_proj", "down_proj"))), RecordingObserver())
    assert result.adapter_dir is not None
    before, after = base_weights(world), weights(result)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "down_proj.weight")) for name in changed)
    model = load_causal_lm(world.base_model_dir, dtype=torch.float32)
    adapter_files.load_adapter(model, result.adapter_dir)
    merged, _ = merged_state_dict(model)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in after.items())


def test_every_pair_is_reported(world: World) -> None:
    observer = RecordingObserver()
    result = run(world.plan("report"), observer)
    assert result.pairs_file is not None
    records = [json.loads(line) for line in result.pairs_file.read_text().splitlines()]
    train, validation = (
        [record for record in records if record["split"] == split] for split in ("train", "validation")
    )
    assert [record["line"] for record in train] == list(range(1, 12))
    assert [record["line"] for record in validation] == list(range(1, 6))
    assert all(record["margin_first"] == 0.0 for record in validation)
    last = sum(record["margin_last"] for record in validation) / 5
    assert last == pytest.approx(result.evaluation[names.REWARD_MARGINS], rel=1e-6)
    first_step = [record for record in train if record["margin_first"] == 0.0]
    assert len(first_step) == 4, "the four pairs of the first step"
    for record in records:
        assert record["margin_last"] == pytest.approx(record["chosen_reward"] - record["rejected_reward"], abs=1e-6)


def test_sft_runs_on_demonstrations_when_given(world: World) -> None:
    """Rows without a rejected response, of another number than the pairs."""
    rows = [row[:2] for row in random_pairs(9, 8)]
    data = write_data(world.directory / "demonstrations", rows, kind="demonstration")
    observer = RecordingObserver()
    run(world.plan("demonstrations", sft_data=data), observer)
    assert observer.calls[0] == ("started", (Stage.SFT, 3, 0))
    assert observer.curve("sft", "train", names.NUM_TOKENS) != []
    total = sum(len(prompt) + len(response) for prompt, response in rows)
    assert sum(value or 0 for value in observer.curve("sft", "train", names.NUM_TOKENS)) == total


def test_without_validation_and_reference(world: World) -> None:
    observer = RecordingObserver()
    result = run(world.plan("least", sft=None, validation_data=None, variant="simpo", sample_prompts=()), observer)
    assert observer.calls[:3] == [
        ("skipped", Stage.SFT),
        ("skipped", Stage.REFERENCE),
        ("started", (Stage.DPO, 6, 0)),
    ]
    assert (result.evaluation, result.num_validation_pairs, result.samples) == ({}, 0, ())
    assert names.CHOSEN_LOGPS_FELL not in observer.points[0].values


def test_points_of_a_run(world: World) -> None:
    """One for every update, numbered from 1, and evaluations at 0, every two steps and the end."""
    observer = RecordingObserver()
    run(world.plan("points"), observer)
    steps = [(point.stage, point.split, point.step) for point in observer.points]
    assert len(set(steps)) == len(steps)
    assert [step for stage, _, step in steps if stage == "sft"] == [1, 2, 3]
    assert [step for stage, split, step in steps if (stage, split) == ("dpo", "train")] == [1, 2, 3, 4, 5, 6]
    assert [step for stage, split, step in steps if (stage, split) == ("dpo", "validation")] == [0, 2, 4, 6]
    warm = observer.curve("dpo", "train", names.LEARNING_RATE)[:3]
    assert warm == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    for point in observer.points:
        json.dumps(point.values, allow_nan=False)


def test_equal_plans_give_equal_bytes(world: World) -> None:
    first, second = RecordingObserver(), RecordingObserver()
    left, right = run(world.plan("equal-1"), first), run(world.plan("equal-2"), second)
    assert tree_bytes(left.policy_dir) == tree_bytes(right.policy_dir)
    assert untimed(first.points) == untimed(second.points)


def test_another_seed_gives_another_order(world: World) -> None:
    left, right = (run(world.plan(f"seed-{seed}", seed=seed), RecordingObserver()) for seed in (0, 1))
    assert any(not torch.equal(tensor, weights(right)[name]) for name, tensor in weights(left).items())


# Stops


def stop_in(stage: Stage, request: Any, after_points: int = 0) -> Callable[[RecordingObserver], Any]:
    """From some point of a stage on."""
    return lambda observer: request if observer.stage is stage and len(observer.points) >= after_points else "none"


@pytest.mark.parametrize("stage", [Stage.SFT, Stage.REFERENCE, Stage.DPO, Stage.EVALUATION])
def test_abandon_stops_without_a_checkpoint(stage: Stage, world: World) -> None:
    observer = RecordingObserver(stop_in(stage, "abandon"))
    with pytest.raises(TrainingStopped) as stopped:
        run(world.plan(f"abandon-{stage}"), observer)
    assert not stopped.value.has_checkpoint
    assert all(ref.step in (3, 6) for ref in observer.checkpoints), "only those at the ends of stages"


def test_a_stop_is_met_at_the_next_step_boundary(world: World) -> None:
    observer = RecordingObserver(stop_in(Stage.DPO, "checkpoint", after_points=6))
    with pytest.raises(TrainingStopped) as stopped:
        run(world.plan("boundary"), observer)
    assert stopped.value.has_checkpoint
    assert observer.points[-1].step == observer.checkpoints[-1].step == 2
    assert len(observer.points) == 6


def test_save_in_dpo_finishes_with_the_policy_as_it_is(world: World) -> None:
    observer = RecordingObserver(stop_in(Stage.DPO, "save", after_points=6))
    result = run(world.plan("save-dpo"), observer)
    assert (result.stage, result.step) == (Stage.DPO, 2)
    assert observer.points[-1].step == 2
    assert observer.points[-1].split == "validation"
    assert result.evaluation == observer.points[-1].values
    assert (result.policy_dir / "config.json").is_file()


def test_a_saved_run_that_dies_before_its_end_does_not_train_on(world: World) -> None:
    observer = RecordingObserver(stop_in(Stage.DPO, "save", after_points=6))
    expected = run(world.plan("save-die"), observer)
    resumed = RecordingObserver()
    plan = world.plan("save-rest", resume_from=str(observer.checkpoints[-1].directory))
    result = run(plan, resumed)
    assert [point.split for point in resumed.points] == ["validation"]
    assert tree_bytes(result.policy_dir) == tree_bytes(expected.policy_dir)


def test_save_in_sft_and_reference_finishes_with_the_sft_policy(world: World) -> None:
    early = RecordingObserver(stop_in(Stage.SFT, "save", after_points=2))
    result = run(world.plan("save-sft"), early)
    assert (result.stage, result.step, result.evaluation) == (Stage.SFT, 2, {})
    assert not early.outputs, "half of an SFT is nobody else's SFT policy"
    later = RecordingObserver(stop_in(Stage.REFERENCE, "save"))
    result = run(world.plan("save-reference"), later)
    assert (result.stage, result.step) == (Stage.REFERENCE, 0)
    sft = load_file(later.outputs[Stage.SFT].directory / "model.safetensors")
    assert all(torch.equal(tensor, sft[name]) for name, tensor in weights(result).items())


@pytest.mark.parametrize("patience", [1, 2])
def test_early_stopping(patience: int, world: World) -> None:
    """Accuracy is 0 before DPO, at least once better after, and can then not improve by more than 1."""
    stopping = EarlyStoppingPlan(metric="rewards/accuracies", patience=patience, min_delta=0.999)
    plan = world.plan(f"early-{patience}", evaluate_every_steps=1)
    plan = dataclasses.replace(plan, dpo=dataclasses.replace(plan.dpo, early_stopping=stopping))
    observer = RecordingObserver()
    result = run(plan, observer)
    assert result.step == patience
    assert observer.events == [("info", "early_stopping")]
    resumed = RecordingObserver()
    again = run(
        dataclasses.replace(
            plan, work_dir=plan.work_dir + "-rest", resume_from=str(observer.checkpoints[-1].directory)
        ),
        resumed,
    )
    assert resumed.points == [], "its last evaluation was made before"
    assert again.evaluation == result.evaluation
    assert tree_bytes(again.policy_dir) == tree_bytes(result.policy_dir)


# Lack of memory, of disk, of sense


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most_tokens: int) -> None:
    """A device on which a forward pass of more tokens fails as CUDA's does."""

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(model: object, batch: Any, **options: Any) -> Any:
            if batch.num_tokens > most_tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has …")
            return function(model, batch, **options)

        return call

    monkeypatch.setattr(dpo, "token_logps", guarded(dpo.token_logps))
    monkeypatch.setattr(reference_pass, "token_logps", guarded(reference_pass.token_logps))


def test_lack_of_memory_halves_micro_batches_not_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The degraded run is, to the bit, the run planned with the smaller micro-batches."""
    expected = run(world.plan("memory-small", sft=None, micro_batch_tokens=80), RecordingObserver())
    short_of_memory(monkeypatch, 80)
    observer = RecordingObserver()
    result = run(world.plan("memory-short", sft=None, micro_batch_tokens=320), observer)
    assert observer.events == [("warning", "oom_degraded")] * 2
    assert tree_bytes(result.policy_dir) == tree_bytes(expected.policy_dir)


def test_a_degraded_run_resumes_degraded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 80)
    plan = world.plan("degraded", sft=None, micro_batch_tokens=320, checkpoint_every_steps=2)
    observer = RecordingObserver()
    expected = run(plan, observer)
    middle = next(ref for ref in observer.checkpoints if ref.step == 2)
    rest = RecordingObserver()
    result = run(dataclasses.replace(plan, work_dir=plan.work_dir + "-rest", resume_from=str(middle.directory)), rest)
    assert not rest.events
    assert tree_bytes(result.policy_dir) == tree_bytes(expected.policy_dir)


def test_memory_that_never_suffices_is_said_with_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 1)
    observer = RecordingObserver()
    with pytest.raises(GpuOutOfMemory) as failure:
        run(world.plan("memory-none", sft=None), observer)
    assert observer.events == [("warning", "oom_degraded")] * 3
    assert failure.value.failure_code is FailureCode.GPU_OOM
    assert failure.value.context["needed_mib"] == 1536
    assert "1536 MiB" in failure.value.detail


def test_a_full_disk_at_a_stop_is_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(world.directory))

    monkeypatch.setattr(files, "write_tensors", full)
    with pytest.raises(DiskFull) as failure:
        run(world.plan("disk"), RecordingObserver(stop_at_poll(2)))
    assert str(world.directory) not in failure.value.detail


def test_a_full_disk_between_stops_is_an_event(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_tensors", full)
    observer = RecordingObserver()
    run(world.plan("disk-event", checkpoint_every_steps=2), observer)
    assert set(observer.events) == {("warning", "disk_full")}
    assert not observer.checkpoints


def test_a_nan_names_step_and_lines(world: World, tmp_path: Path) -> None:
    """A base model with one NaN in the embedding of a token that only line 3 has."""
    pairs = random_pairs(6, 4)
    pairs[2] = ([96, 5], *pairs[2][1:])
    pairs = [
        row if index == 2 else tuple([t for t in part if t != 96] or [3] for part in row)
        for index, row in enumerate(pairs)
    ]
    base = tmp_path / "base"
    base.mkdir()
    for name, content in tree_bytes(Path(world.base_model_dir)).items():
        (base / name).write_bytes(content)
    tensors = load_file(base / "model.safetensors")
    untied = load_causal_lm(world.base_model_dir, dtype=torch.float32)
    assert untied.config.tie_word_embeddings
    tensors["model.embed_tokens.weight"][96] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    plan = world.plan("nan", base_model_dir=str(base), train_data=write_data(tmp_path / "rows", pairs))
    with pytest.raises(NonFiniteLoss, match=r"at step 1 of sft"):
        run(plan, RecordingObserver())
    with pytest.raises(NonFiniteLoss, match="not finite"):
        run(dataclasses.replace(plan, sft=None), RecordingObserver())


def test_plans_that_do_not_fit_together(world: World) -> None:
    for changes, message in [
        ({"variant": "nonsense"}, "not a variant"),
        ({"variant": "dpo", "variant_options": {"tau": 1.0}}, "tau"),
        ({"lora": LoraPlan(target_modules=("no_such_layer",))}, "no_such_layer"),
        ({"sft": None, "sft_data": world.train_data}, "SFT is skipped"),
    ]:
        with pytest.raises(BadPlan, match=message):
            run(world.plan("bad", **changes), RecordingObserver())
    stage = DpoPlan(epochs=1, learning_rate=1e-3, batch_size=4, early_stopping=EarlyStoppingPlan())
    with pytest.raises(BadPlan, match="early_stopping"):
        run(world.plan("bad", dpo=stage, validation_data=None), RecordingObserver())


def test_bad_data_and_base_models(world: World, tmp_path: Path) -> None:
    demonstrations = write_data(tmp_path / "one", [([1, 2], [3])], kind="demonstration")
    empty = write_data(tmp_path / "empty", [])
    for directory in (demonstrations, empty, str(tmp_path / "missing")):
        with pytest.raises(BadData) as failure:
            run(world.plan("bad-data", train_data=directory), RecordingObserver())
        assert str(tmp_path) not in failure.value.detail
    with pytest.raises(BadBaseModel):
        run(world.plan("bad-base", base_model_dir=str(tmp_path)), RecordingObserver())


def test_a_checkpoint_of_another_plan_is_refused(world: World) -> None:
    observer = RecordingObserver()
    plan = world.plan("theirs")
    run(plan, observer)
    for changes in ({"beta": 0.2}, {"seed": 1}, {"base_model_digest": "other"}, {"micro_batch_tokens": 41}):
        with pytest.raises(BadCheckpoint, match="other settings"):
            run(world.plan("ours", resume_from=str(observer.checkpoints[0].directory), **changes), RecordingObserver())


def test_other_versions_are_told(world: World) -> None:
    observer = RecordingObserver()
    run(world.plan("versions"), observer)
    path = observer.checkpoints[0].directory / files.STATE_FILE
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"versions": state["versions"] | {"torch": "0.1"}}))
    resumed = RecordingObserver()
    run(world.plan("versions-2", resume_from=str(observer.checkpoints[0].directory)), resumed)
    assert resumed.events == [("warning", "resumed_elsewhere")]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), HostOutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), HostOutOfMemory),
        (torch.OutOfMemoryError("out of memory"), GpuOutOfMemory),
        (OSError(errno.EDQUOT, "quota"), DiskFull),
    ],
)
def test_foreign_errors_get_names(
    error: Exception, kind: type[TrainingFailure], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(policies, "load_causal_lm", fail)
    with pytest.raises(kind) as failure:
        run(world.plan("foreign"), RecordingObserver())
    assert isinstance(failure.value, DomainError)
    assert failure.value.detail


def test_an_unknown_error_stays_what_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(policies, "load_causal_lm", fail)
    with pytest.raises(RuntimeError, match="something else"):
        run(world.plan("unknown"), RecordingObserver())
