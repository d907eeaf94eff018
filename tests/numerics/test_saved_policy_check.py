"""A policy that is not the trained one is not published: planted faults, each refused, and what LoRA in bf16 keeps.

The base model has a sliding window shorter than its rows, so that a window that is lost shows; the learning rate is so
small that bf16's grid would take most of the update away.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_model
from tiny_runs import RecordingObserver, World, write_data
from trained_shapes import random_pairs
from transformers import AutoConfig, AutoModelForCausalLM

from core.training.data.encoded import EncodedData
from core.training.failures import PolicyNotSavedWell
from core.training.measures import saved_folder, saved_policy_check
from core.training.measures.saved_folder import SavedPolicy
from core.training.measures.saved_policy_check import judge, tolerance_of, verify
from core.training.model.adapters import adapter_files
from core.training.model.loading import load_causal_lm
from core.training.model.policies import load_untrained, trained_digests
from core.training.pipeline import TrainingResult, run
from core.training.plan import ArtifactDtype, LoraPlan, TrainingPlan

WINDOW = 6
WEIGHTS = "model.safetensors"


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(path)
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, {"format": "pt"})


def plan_in(directory: Path, lora: LoraPlan | None) -> TrainingPlan:
    torch.set_num_threads(1)
    base = make_tiny_model(directory / "base", "mistral")
    change_json(base / "config.json", sliding_window=WINDOW)
    change_weights(base / WEIGHTS, lambda weights: weights.update({n: t.bfloat16() for n, t in weights.items()}))
    train = write_data(directory / "train", random_pairs(8, 1))
    validation = write_data(directory / "validation", random_pairs(6, 2))
    plan = World(directory, str(base), train, validation).plan("run", lora=lora, sft=None, precision="bf16")
    dpo = dataclasses.replace(plan.dpo, learning_rate=2e-5)
    return dataclasses.replace(plan, dpo=dpo, eos_token_ids=(2, 7), max_new_tokens=16)


@dataclasses.dataclass(frozen=True)
class Trained:
    plan: TrainingPlan
    result: TrainingResult
    observer: RecordingObserver

    def saved(self, directory: Path) -> SavedPolicy:
        """A copy of the published folder, to be spoilt."""
        policy = Path(shutil.copytree(self.result.policy_dir, directory / "policy"))
        dtype = torch.bfloat16
        if self.plan.lora is None:
            model = load_causal_lm(policy, dtype=dtype)
        else:
            model = load_causal_lm(self.plan.base_model_dir, dtype=dtype)
            adapter_files.load_adapter(model, policy / "adapter")
        data = EncodedData.open(self.plan.validation_data or "")
        return SavedPolicy(self.plan, policy, trained_digests(model, self.plan), data, "cpu")


def train(directory: Path, lora: LoraPlan | None, artifact_dtype: ArtifactDtype = "auto") -> Trained:
    plan = dataclasses.replace(plan_in(directory, lora), artifact_dtype=artifact_dtype)
    observer = RecordingObserver()
    return Trained(plan, run(plan, observer), observer)


@pytest.fixture(scope="module")
def with_lora(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("lora"), LoraPlan(rank=4, alpha=8))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("full"), None)


def put_base_in_place(saved: SavedPolicy) -> None:
    base = load_file(Path(saved.plan.base_model_dir) / WEIGHTS)
    change_weights(saved.directory / WEIGHTS, lambda weights: weights.update({n: t.float() for n, t in base.items()}))


def swap_layers(saved: SavedPolicy) -> None:
    def swap(weights: dict[str, torch.Tensor]) -> None:
        names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1)]
        weights[names[0]], weights[names[1]] = weights[names[1]], weights[names[0]]

    change_weights(saved.directory / WEIGHTS, swap)


def drop_window(saved: SavedPolicy) -> None:
    change_json(saved.directory / "config.json", sliding_window=None)


def lose_end_token(saved: SavedPolicy) -> None:
    change_json(saved.directory / "generation_config.json", eos_token_id=2)


def untie_head(saved: SavedPolicy) -> None:
    """Untied without a head of its own in the files: transformers would make one up."""
    change_json(saved.directory / "config.json", tie_word_embeddings=False)

    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights["lm_head.weight"]

    change_weights(saved.directory / WEIGHTS, drop)


def scale_adapter(saved: SavedPolicy) -> None:
    change_weights(saved.directory / "adapter" / adapter_files.WEIGHTS_FILE, _double_up)


def _double_up(weights: dict[str, torch.Tensor]) -> None:
    weights.update({name: 2 * tensor for name, tensor in weights.items() if "lora_B" in name})


def scale_by_alpha(saved: SavedPolicy) -> None:
    change_json(saved.directory / "adapter" / adapter_files.CONFIG_FILE, lora_alpha=4)


def merge_twice(saved: SavedPolicy) -> None:
    """The published weights with twice the update; the adapter beside them is right."""
    base = load_file(Path(saved.plan.base_model_dir) / WEIGHTS)

    def twice(weights: dict[str, torch.Tensor]) -> None:
        weights.update({name: 2 * tensor - base[name].float() for name, tensor in weights.items()})

    change_weights(saved.directory / WEIGHTS, twice)


SHARED_FAULTS = [
    (put_base_in_place, "published .* tensors"),
    (swap_layers, "published .* tensors"),
    (drop_window, "sliding_window"),
    (lose_end_token, "token 7"),
    (untie_head, "lm_head"),
]
ADAPTER_FAULTS = [
    (scale_adapter, "adapter's .* tensors"),
    (scale_by_alpha, "scales its update"),
    (merge_twice, "published .* tensors"),
]


@pytest.mark.parametrize(("fault", "message"), SHARED_FAULTS + ADAPTER_FAULTS)
def test_a_fault_in_a_merged_policy_is_refused(
    fault: Callable[[SavedPolicy], None], message: str, with_lora: Trained, tmp_path: Path
) -> None:
    saved = with_lora.saved(tmp_path)
    fault(saved)
    with pytest.raises(PolicyNotSavedWell, match=message):
        verify(saved)


@pytest.mark.parametrize(("fault", "message"), SHARED_FAULTS)
def test_a_fault_in_a_full_policy_is_refused(
    fault: Callable[[SavedPolicy], None], message: str, full: Trained, tmp_path: Path
) -> None:
    saved = full.saved(tmp_path)
    fault(saved)
    with pytest.raises(PolicyNotSavedWell, match=message):
        verify(saved)


@pytest.mark.parametrize("fault", [put_base_in_place, swap_layers, drop_window, merge_twice])
def test_log_probabilities_alone_refuse_it_too(
    fault: Callable[[SavedPolicy], None], with_lora: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (saved_folder, saved_policy_check):
        monkeypatch.setattr(module, "require_equal_weights", lambda *_: None)
    monkeypatch.setattr(saved_policy_check, "check_config", lambda *_: None)
    monkeypatch.setattr(saved_policy_check, "_require_same_answer", lambda *_: None)
    saved = with_lora.saved(tmp_path)
    verify(saved)
    fault(saved)
    with pytest.raises(PolicyNotSavedWell, match="log-probabilities"):
        verify(saved)


@pytest.mark.parametrize("moved", [1e-4, 1e-3, 0.1, 3.0])
def test_no_base_model_passes_in_the_place_of_a_policy_that_has_learnt(moved: float) -> None:
    base, trained = np.zeros(50), np.full(50, moved)
    tolerance = tolerance_of(base, trained)
    judge(np.abs(trained - trained), tolerance)
    with pytest.raises(PolicyNotSavedWell):
        judge(np.abs(base - trained), tolerance)


def test_nan_is_no_equality() -> None:
    with pytest.raises(PolicyNotSavedWell):
        judge(np.array([0.0, np.nan]), 1e-4)


def test_what_lora_learnt_in_bf16_is_published_whole(with_lora: Trained) -> None:
    """Published weights are base + update to the last bit of float32, whatever bf16's grid is."""
    published = AutoModelForCausalLM.from_pretrained(with_lora.result.policy_dir)
    assert published.dtype == torch.float32
    assert exact_weights(with_lora, torch.float32) == with_lora.result.policy_dir
    found = with_lora.result.summary["published"]
    assert found["rounding"]["dtype"] == "float32"
    assert found["rounding"]["share_kept"] == pytest.approx(1, abs=1e-4)
    assert found["margins"]["share_kept"] == pytest.approx(1, abs=1e-2)
    assert ("warning", "update_rounded_away") not in with_lora.observer.events


def test_bf16_on_request_is_told_what_it_costs(tmp_path: Path) -> None:
    trained = train(tmp_path, LoraPlan(rank=4, alpha=8), "bfloat16")
    assert AutoModelForCausalLM.from_pretrained(trained.result.policy_dir).dtype == torch.bfloat16
    assert exact_weights(trained, torch.bfloat16) == trained.result.policy_dir
    rounding = trained.result.summary["published"]["rounding"]
    assert rounding["dtype"] == "bfloat16"
    assert rounding["share_kept"] < 0.9
    assert rounding["share_unmoved"] > 0.3
    assert trained.result.summary["published"]["margins"]["share_kept"] < 0.95
    assert ("warning", "update_rounded_away") in trained.observer.events


def exact_weights(trained: Trained, dtype: torch.dtype) -> Path:
    """The folder, once its adapted weights are found to be round(base + scaling B A) by arithmetic written anew."""
    policy = trained.result.policy_dir
    base, published = (load_file(Path(folder) / WEIGHTS) for folder in (trained.plan.base_model_dir, policy))
    adapter = load_file(policy / "adapter" / adapter_files.WEIGHTS_FILE)
    names = [name for name in adapter if name.endswith("lora_A.weight")]
    for name in names:
        layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        up = adapter[name.replace("lora_A", "lora_B")].float()
        weight = f"{layer}.weight"
        assert torch.equal(published[weight], (base[weight].float() + 2.0 * (up @ adapter[name].float())).to(dtype))
        assert not torch.equal(published[weight].float(), base[weight].float())
    assert len(names) == 14
    return policy


def test_a_full_policy_rounded_on_request_is_the_rounded_one(tmp_path: Path) -> None:
    """Trained in fp32, published in bfloat16: its weights are exactly the rounded trained ones."""
    plan = dataclasses.replace(plan_in(tmp_path, None), precision="fp32", artifact_dtype="bfloat16")
    result = run(plan, RecordingObserver())
    assert AutoModelForCausalLM.from_pretrained(result.policy_dir).dtype == torch.bfloat16
    assert result.summary["verification"]["num_weights_equal"] > 0


def test_computed_tables_are_those_of_float32(tmp_path: Path) -> None:
    """Gemma scales embeddings by a number that it computes: weights are rounded to bf16, the number is not."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model("gemma3_text", vocab_size=64, **shape, **heads)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "base")
    plan = dataclasses.replace(plan_in(tmp_path / "run", None), base_model_dir=str(tmp_path / "base"), precision="bf16")
    model = load_untrained(plan, "cpu")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    for (name, ours), (_, theirs) in zip(model.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_the_answer_stays_within_the_positions(tmp_path: Path) -> None:
    """A learned table of positions has no room behind a prompt that nearly fills it."""
    make_tiny_model(tmp_path / "base", "gpt2")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    limit = model.config.max_position_embeddings
    plan = dataclasses.replace(plan_in(tmp_path / "run", None), sample_prompts=(tuple([5] * (limit - 3)),))
    saved = SavedPolicy(plan, tmp_path, {}, EncodedData.open(plan.train_data), "cpu")
    assert saved_policy_check._answer_tokens(model, saved) == 3
