"""Less memory, same numbers: what the memory plan changes, and whether its prediction holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import CONFIGS, VOCABULARY, make_model, write_rows
from tiny_runs import RecordingObserver, World, tree_bytes
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.training.data.encoded import EncodedData
from core.training.data.packing import pack_pairs
from core.training.failures import HostOutOfMemory
from core.training.kernels.attention_plan import MOST_KEPT_KEYS
from core.training.model.adapters import adapters
from core.training.model.capabilities import capabilities_of
from core.training.model.loading import load_causal_lm, prepare_model
from core.training.model.logps import pair_logps
from core.training.model.policies import trainable_parameters
from core.training.pipeline import run
from core.training.plan import SftPlan
from core.training.stages import memory_costs, micro_batch
from core.training.stages.micro_batch import checkpoint_activations
from core.training.steps.optimizer import MasterOptimizer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("memory"))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_computing_layers_twice_changes_no_bit(architecture: str, with_adapter: bool, tmp_path: Path) -> None:
    rows = [([5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15]), ([20, 21], [22], [23, 24, 25]), ([30] * 9, [31, 32], [33])]
    batch = pack_pairs(write_rows(tmp_path, rows), range(3), "cpu")
    gradients = []
    for twice in (False, True):
        model = make_model(architecture)
        if with_adapter:
            adapters.inject(model, adapters.LoraConfig(rank=2, alpha=4, dropout=0.5), seed=1)
            for _, layer in adapters.adapters(model):
                layer.lora_B.data.fill_(0.1)
                layer.train()
        if twice:
            assert checkpoint_activations(model)
        torch.manual_seed(3)
        logps = pair_logps(model, batch)
        (logps.chosen.sums - 0.5 * logps.rejected.sums).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def kept_bytes(model: torch.nn.Module, batch: object) -> int:
    """What autograd really holds after the forward pass of a batch, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logps = pair_logps(model, batch)  # type: ignore[arg-type]
    del logps
    return sum(kept.values())


@pytest.mark.parametrize("with_adapter", [False, True])
def test_the_prediction_of_what_a_batch_keeps_holds(with_adapter: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def draw(count: int) -> list[int]:
        return [int(token) for token in rng.integers(2, VOCABULARY, count)]

    rows = [(draw(60), draw(30), draw(25)) for _ in range(6)]
    model = make_model("llama")
    if with_adapter:
        adapters.inject(model, adapters.LoraConfig(rank=2, alpha=4), seed=1)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = MasterOptimizer(trained, SftPlan(epochs=1, learning_rate=1e-3, batch_size=6))
    costs = memory_costs.measure_costs(model, optimizer)
    assert costs is not None
    batch = pack_pairs(write_rows(tmp_path, rows), range(6), "cpu")
    keys = min(115, MOST_KEPT_KEYS)  # a pair is one block
    predicted = (costs.token_bytes + keys * costs.score_bytes) * batch.num_tokens
    predicted += costs.scored_token_bytes * batch.num_scored
    assert predicted == pytest.approx(kept_bytes(model, batch), rel=0.2)


def test_little_memory_makes_micro_batches_smaller_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(world.plan("small", sft=None, micro_batch_tokens=80), RecordingObserver())
    monkeypatch.setattr(micro_batch, "FAST_TOKENS", 80)
    model = load_causal_lm(world.base_model_dir, dtype=torch.float32)
    costs = memory_costs.measure_costs(model, MasterOptimizer(trainable_parameters(model), world.plan("any").dpo))
    assert costs is not None
    sizes = micro_batch.RowSizes.of(EncodedData.open(world.train_data))
    fits, fails = (
        costs.step_bytes(n, int(n * sizes.scored_share), sizes.longest, checkpoints_activations=False)
        for n in (80, 160)
    )
    monkeypatch.setattr(micro_batch, "available_bytes", lambda _: int((fits + fails) / 2 / 0.9))
    observer = RecordingObserver()
    result = run(world.plan("tight", sft=None, micro_batch_tokens=320), observer)
    assert observer.events == [("info", "memory_fitted")]
    assert tree_bytes(result.policy_dir) == tree_bytes(expected.policy_dir)


def test_memory_that_cannot_suffice_is_said_with_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batch, "available_bytes", lambda _: 2**16)
    with pytest.raises(HostOutOfMemory, match="0 MiB are available") as failure:
        run(world.plan("hopeless"), RecordingObserver())
    assert failure.value.context["available_mib"] == 0
    assert int(str(failure.value.context["needed_mib"])) >= 0


def test_the_system_says_what_is_free() -> None:
    free, held = memory_costs.available_bytes(torch.device("cpu")), memory_costs.held_bytes(torch.device("cpu"))
    assert free is None or free > 2**20
    assert held == 0 or held > 2**20


@pytest.mark.parametrize("architecture", ["bloom", "gpt_neo", "mamba", "llama4_text"])
def test_sequences_that_run_one_by_one_are_predicted_too(architecture: str, tmp_path: Path) -> None:
    """With their prompts twice, and with the scores of every pair of tokens where attention keeps them."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> list[int]:
        return [int(token) for token in rng.integers(2, VOCABULARY, count)]

    model = make_model(architecture) if architecture in CONFIGS else _make_alone(architecture)
    data = write_rows(tmp_path, [(draw(90), draw(40), draw(35)) for _ in range(4)])
    optimizer = MasterOptimizer(dict(model.named_parameters()), SftPlan(epochs=1, learning_rate=1e-3, batch_size=4))
    costs = memory_costs.measure_costs(model, optimizer)
    assert costs is not None
    assert not capabilities_of(model).is_packable
    packed = micro_batch.RowSizes.of(data)
    rows = packed.alone(data)
    batch = pack_pairs(data, range(4), "cpu")
    assert (packed.longest, rows.longest_sequence, rows.repeats) == (165, 130, pytest.approx(255 / 165))
    tokens = int(batch.num_tokens * rows.repeats)
    predicted = (costs.token_bytes + 130 * costs.score_bytes) * tokens + costs.scored_token_bytes * batch.num_scored
    assert predicted == pytest.approx(kept_bytes(model, batch), rel=0.25)


def _make_alone(architecture: str) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 512}
    special: dict[str, dict[str, object]] = {
        "gpt_neo": {"num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 60},
        "llama4_text": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "attention_chunk_size": 64}
        | {"intermediate_size": 48, "intermediate_size_mlp": 48, "num_local_experts": 2},
    }
    tokens = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": None}
    config = AutoConfig.for_model(architecture, **(sizes | tokens | special[architecture]))
    return prepare_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32))
