"""T19: only the adapter learns, its gradients are right, merging changes nothing, and peft reads its files."""

import json
from pathlib import Path

import pytest
import torch
from packed_rows import PROMISED, make_model, make_stock_model, random_rows, stock_sums, write_rows
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.training.data.packing import PackedBatch, pack_pairs
from core.training.model.adapters import adapters
from core.training.model.adapters.adapter_files import CONFIG_FILE, WEIGHTS_FILE, load_adapter, save_adapter
from core.training.model.adapters.adapters import LoraConfig
from core.training.model.adapters.targets import UnsupportedAdapter, find_targets
from core.training.model.loading import save_policy
from core.training.model.logps import pair_logps

CONFIG = LoraConfig(rank=3, alpha=6.0)
TOLERANCE = {"rtol": 1e-5, "atol": 3e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def batch(tmp_path: Path) -> PackedBatch:
    rows = random_rows()
    return pack_pairs(write_rows(tmp_path / "rows", rows), range(len(rows)), "cpu")


def adapted(architecture: str, config: LoraConfig = CONFIG, **options: object) -> PreTrainedModel:
    """A model whose adapter does something."""
    model = make_model(architecture, **options)
    adapters.inject(model, config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, layer in adapters.adapters(model):
            layer.lora_B.copy_(0.3 * torch.randn(layer.lora_B.shape, generator=generator))
    return model


def margins(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    logps = pair_logps(model, batch)
    return torch.cat((logps.chosen.sums, logps.rejected.sums))


@pytest.mark.parametrize("architecture", PROMISED)
def test_a_new_adapter_changes_nothing(architecture: str, batch: PackedBatch) -> None:
    model = make_model(architecture)
    with torch.no_grad():
        before = margins(model, batch)
        parameters = adapters.inject(model, CONFIG, seed=0)
        after = margins(model, batch)
    torch.testing.assert_close(after, before, **TOLERANCE)
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("architecture", PROMISED)
def test_only_the_adapter_is_trained_and_all_of_it(architecture: str, batch: PackedBatch) -> None:
    model = adapted(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01)
    margins(model, batch)[:6].sum().backward()
    optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != ("lora_" in name), name


@pytest.mark.parametrize("architecture", PROMISED)
def test_gradients_are_those_of_the_summed_weights(architecture: str, batch: PackedBatch) -> None:
    """d/dA and d/dB of the model with W + (alpha / r) B A, written with plain tensors."""
    model, plain = adapted(architecture), make_model(architecture)
    weights = torch.linspace(-1, 1, 12)
    (margins(model, batch) * weights).sum().backward()
    layers = dict(adapters.adapters(model))
    factors = {
        name: (layer.lora_A.detach().clone().requires_grad_(), layer.lora_B.detach().clone().requires_grad_())
        for name, layer in layers.items()
    }
    summed = {}
    for name, (down, up) in factors.items():
        delta = CONFIG.alpha / CONFIG.rank * up @ down
        original = plain.get_submodule(name).weight.detach()
        summed[f"{name}.weight"] = original + (delta.t() if layers[name].is_transposed else delta)

    class Margins(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = plain

        def forward(self) -> Tensor:
            return margins(self.model, batch)

    values = functional_call(Margins(), {f"model.{name}": tensor for name, tensor in summed.items()}, ())
    (values * weights).sum().backward()
    for name, (down, up) in factors.items():
        for actual, expected in ((layers[name].lora_A.grad, down.grad), (layers[name].lora_B.grad, up.grad)):
            assert expected is not None
            scale = float(expected.abs().max()) + 1e-6
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5 * scale, msg=name)


@pytest.mark.parametrize("architecture", PROMISED)
def test_merging_gives_the_adapters_outputs(architecture: str, batch: PackedBatch, tmp_path: Path) -> None:
    model = adapted(architecture)
    with torch.no_grad():
        expected = margins(model, batch)
        save_policy(model, tmp_path / "merged")
        assert torch.equal(margins(model, batch), expected), "saving leaves the model as it is"
        adapters.merge(model)
        torch.testing.assert_close(margins(model, batch), expected, **TOLERANCE)
        assert not list(adapters.adapters(model))
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
        rows = random_rows()
        stock = torch.cat((stock_sums(loaded, rows, 0), stock_sums(loaded, rows, 1)))
    torch.testing.assert_close(stock, expected, **TOLERANCE)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_stay_tied_and_untouched(tied: bool, tmp_path: Path) -> None:
    model = adapted("llama", tie_word_embeddings=tied)
    before = model.get_input_embeddings().weight.clone()
    save_policy(model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    embeddings, head = loaded.get_input_embeddings().weight, loaded.get_output_embeddings().weight
    assert (embeddings.data_ptr() == head.data_ptr()) == tied
    assert torch.equal(embeddings, before)


@pytest.mark.parametrize("architecture", PROMISED)
def test_peft_reads_a_saved_adapter(architecture: str, batch: PackedBatch, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = adapted(architecture)
    save_adapter(model, CONFIG, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(make_stock_model(architecture), tmp_path / "adapter").eval()
    rows = random_rows()
    with torch.no_grad():
        stock = torch.cat((stock_sums(theirs, rows, 0), stock_sums(theirs, rows, 1)))
        torch.testing.assert_close(margins(model, batch), stock, **TOLERANCE)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_adapter_of_peft_is_read(architecture: str, batch: PackedBatch, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(
        make_stock_model(architecture),
        peft.LoraConfig(r=4, lora_alpha=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False),
    )
    theirs.save_pretrained(tmp_path / "adapter")
    document = json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())
    (tmp_path / "adapter" / CONFIG_FILE).write_text(json.dumps(document | {"init_lora_weights": True}))
    model = make_model(architecture)
    assert load_adapter(model, tmp_path / "adapter").rank == 4
    rows = random_rows()
    with torch.no_grad():
        stock = torch.cat((stock_sums(theirs.eval(), rows, 0), stock_sums(theirs, rows, 1)))
        torch.testing.assert_close(margins(model, batch), stock, **TOLERANCE)


def test_a_saved_adapter_is_read_back(tmp_path: Path) -> None:
    model = adapted("qwen2")
    save_adapter(model, CONFIG, tmp_path, base_model_name="base")
    other = make_model("qwen2")
    config = load_adapter(other, tmp_path)
    assert (config.rank, config.alpha) == (CONFIG.rank, CONFIG.alpha)
    for name, tensor in adapters.adapter_state(model).items():
        assert torch.equal(adapters.adapter_state(other)[name], tensor)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("option", "value"),
    [("use_dora", True), ("use_rslora", True), ("init_lora_weights", "pissa"), ("bias", "all"), ("peft_type", "IA3")],
)
def test_adapters_of_another_kind_are_refused(option: str, value: object, tmp_path: Path) -> None:
    save_adapter(adapted("llama"), CONFIG, tmp_path)
    document = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(document | {option: value}))
    with pytest.raises(UnsupportedAdapter, match=option):
        load_adapter(make_model("llama"), tmp_path)


def test_an_adapter_for_another_model_is_refused(tmp_path: Path) -> None:
    save_adapter(adapted("llama"), CONFIG, tmp_path)
    with pytest.raises(UnsupportedAdapter):
        load_adapter(make_model("gpt2"), tmp_path)
    with pytest.raises(UnsupportedAdapter, match="shape"):
        load_adapter(make_model("llama", intermediate_size=40), tmp_path)


@pytest.mark.parametrize(
    ("targets", "message"),
    [(["lm_head"], "LM head"), (["q_proj", "c_attn"], "q_proj"), (["embed_tokens"], "embed_tokens")],
)
def test_targets_that_cannot_be_adapted_are_refused(targets: list[str], message: str) -> None:
    model = make_model("llama")
    with pytest.raises(UnsupportedAdapter, match=message):
        adapters.inject(model, LoraConfig(rank=2, alpha=2, target_modules=targets), seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters()), "refused before anything changed"


def test_all_linear_leaves_out_the_head() -> None:
    names = find_targets(make_model("llama", tie_word_embeddings=False), "all-linear")
    assert len(names) == 2 * 7
    assert "lm_head" not in names


def test_named_targets_only() -> None:
    model = adapted("llama", LoraConfig(rank=2, alpha=2, target_modules=["q_proj", "v_proj"]))
    assert [name.rsplit(".")[-1] for name, _ in adapters.adapters(model)] == ["q_proj", "v_proj"] * 2


def test_a_second_adapter_is_refused() -> None:
    with pytest.raises(UnsupportedAdapter, match="already"):
        adapters.inject(adapted("llama"), CONFIG, seed=0)


def test_the_seed_decides_the_adapter() -> None:
    states = []
    for seed in (0, 0, 1):
        model = make_model("llama")
        adapters.inject(model, CONFIG, seed=seed)
        states.append(torch.cat([t.flatten() for t in adapters.adapter_state(model).values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_dropout_is_on_in_training_mode_only(batch: PackedBatch) -> None:
    model = adapted("llama", LoraConfig(rank=3, alpha=6.0, dropout=0.5))
    with torch.no_grad():
        expected = margins(adapted("llama"), batch)
        torch.testing.assert_close(margins(model.eval(), batch), expected, **TOLERANCE)
        assert not torch.allclose(margins(model.train(), batch), expected, atol=1e-2)


def test_layers_of_a_group_may_see_different_inputs() -> None:
    """Query, key and value share work when called with one tensor; with others each is still right."""
    model = adapted("llama")
    attention = model.get_submodule("model.layers.0.self_attn")
    first, second = torch.randn(2, 5, 32)
    for x, y in ((first, first), (first, second), (second, first)):
        expected_query = x @ (attention.q_proj.weight + attention.q_proj.delta()).t()
        expected_key = y @ (attention.k_proj.weight + attention.k_proj.delta()).t()
        torch.testing.assert_close(attention.q_proj(x), expected_query, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(attention.k_proj(y), expected_key, rtol=1e-4, atol=1e-4)
