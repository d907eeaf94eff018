"""Adapters on the experts of a mixture: trained as the summed weights would be, merged exactly, and read by peft."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from packed_rows import VOCABULARY, random_rows, stock_token_logps, write_rows
from tiny_runs import RecordingObserver, World, run_with_stops, tree_bytes, untimed
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.training.data.packing import pack_pairs
from core.training.failures import BadPlan
from core.training.kernels.lora_experts import LoraExperts
from core.training.model.adapters import adapter_files, adapters
from core.training.model.adapters.adapters import LoraConfig, adapter_state
from core.training.model.adapters.merging import trained_weights
from core.training.model.adapters.targets import UnsupportedAdapter, coverage
from core.training.model.loading import load_causal_lm, prepare_model, save_policy
from core.training.model.logps import token_logps
from core.training.pipeline import run
from core.training.plan import LoraPlan

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 2,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
}
LATENT = {"q_lora_rank": None, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
MIXTURES: dict[str, dict[str, object]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8},
    "olmoe": {"num_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8, "sliding_window": 16},  # transposed, interleaved, with biases
    "deepseek_v3": LATENT
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 24}
    | {"first_k_dense_replace": 1, "num_key_value_heads": 4},
    "nemotron_h": {"n_routed_experts": 4, "moe_intermediate_size": 24, "layers_block_type": ["attention", "moe"]}
    | {"moe_shared_expert_intermediate_size": 24, "n_group": 1, "topk_group": 1, "head_dim": 8},  # no gate
}
ALL = LoraConfig(rank=3, alpha=6.0, target_parameters="all-experts")
TOLERANCE = 1e-5
"""Nats of a token, in float32."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make(architecture: str) -> PreTrainedModel:
    """A random model as transformers makes it, with weights large enough that every expert shows."""
    config = AutoConfig.for_model(architecture, **(SIZES | MIXTURES[architecture]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.15)
    return model


def adapted(architecture: str, config: LoraConfig = ALL) -> PreTrainedModel:
    """A model in the engine whose adapter does something."""
    model = prepare_model(make(architecture))
    adapters.inject(model, config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, adapter in adapters.adapters(model):
            adapter.lora_B.normal_(0, 0.1, generator=generator)
    return model


def engine_values(model: PreTrainedModel, directory: Path) -> Tensor:
    """Log-probabilities of all response tokens, rows packed where the model packs; chosen responses first."""
    rows = random_rows()
    return token_logps(model, pack_pairs(write_rows(directory, rows), range(len(rows)), "cpu")).values


@torch.no_grad()
def plain_values(model: PreTrainedModel) -> Tensor:
    """The same by a plain forward pass of each sequence alone."""
    return torch.cat(
        [stock_token_logps(model.eval(), row[0], row[1 + side]) for side in (0, 1) for row in random_rows()]
    )


def difference(one: Tensor, other: Tensor) -> float:
    return float((one.detach() - other.detach()).abs().max())


@pytest.mark.parametrize("architecture", MIXTURES)
def test_experts_learn_as_their_summed_weights_would(architecture: str, tmp_path: Path) -> None:
    """B = 0 changes nothing; then outputs and gradients are those of W + (alpha / r) B A in plain transformers."""
    plain = make(architecture)
    new = prepare_model(make(architecture))
    parameters = adapters.inject(new, ALL, seed=0)
    assert difference(engine_values(new, tmp_path / "new"), plain_values(plain)) < TOLERANCE
    assert {id(parameter) for parameter in parameters} == {id(p) for p in new.parameters() if p.requires_grad}

    model = adapted(architecture)
    plain.load_state_dict({weight.name: weight.rounded() for weight in trained_weights(model)})
    values = engine_values(model, tmp_path / "rows")
    assert difference(values, plain_values(plain)) < TOLERANCE
    weights = torch.linspace(-1, 1, len(values))
    (values * weights).sum().backward()
    summed = prepare_model(plain)
    (engine_values(summed, tmp_path / "again") * weights).sum().backward()
    stacks = {name: wrapper for name, wrapper in adapters.wrappers(model).items() if isinstance(wrapper, LoraExperts)}
    assert stacks
    for name, stack in stacks.items():
        for leaf, adapter in stack.by_parameter.items():
            whole = summed.get_submodule(name).get_parameter(leaf).grad
            assert whole is not None
            whole = whole.transpose(1, 2) if stack.base.is_transposed else whole  # [E, O, I]
            downs, ups = (torch.stack([*parts]) for parts in adapter.by_expert())
            grads = adapter.lora_A.grad, adapter.lora_B.grad
            down = (adapter.scaling * ups.transpose(1, 2) @ whole).flatten(0, 1)
            up = (adapter.scaling * whole @ downs.transpose(1, 2)).permute(1, 2, 0).flatten(1)
            for found, expected in zip(grads, (down, up), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("experts", ["all-experts", ()])
@pytest.mark.parametrize("architecture", MIXTURES)
def test_peft_reads_what_was_trained(architecture: str, experts: str, tmp_path: Path) -> None:
    """Shared experts and dense layers too, whose names peft takes for those of experts."""
    config = dataclasses.replace(ALL, target_parameters=experts)
    model = adapted(architecture, config)
    expected = engine_values(model, tmp_path / "rows")
    adapter_files.save_adapter(model, config, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(make(architecture), tmp_path / "adapter")
    assert difference(plain_values(theirs), expected) < TOLERANCE
    save_policy(model, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert difference(plain_values(merged), expected) < TOLERANCE
    assert difference(plain_values(make(architecture)), expected) > 0.1

    theirs.save_pretrained(tmp_path / "again")  # peft's own folder is read back
    again = prepare_model(make(architecture))
    adapter_files.load_adapter(again, tmp_path / "again")
    found = adapter_state(again)
    assert found.keys() == adapter_state(model).keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in adapter_state(model).items())


def test_some_parameters_of_the_experts_only(tmp_path: Path) -> None:
    config = dataclasses.replace(ALL, target_modules=["q_proj"], target_parameters=["experts.down_proj"])
    model = adapted("mixtral", config)
    stacks = [wrapper for wrapper in adapters.wrappers(model).values() if isinstance(wrapper, LoraExperts)]
    assert [list(stack.by_parameter) for stack in stacks] == [["down_proj"]] * 2
    adapter_files.save_adapter(model, config, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(make("mixtral"), tmp_path / "adapter")
    assert difference(plain_values(theirs), engine_values(model, tmp_path / "rows")) < TOLERANCE


@pytest.mark.parametrize(
    ("architecture", "targets", "message"),
    [
        ("mixtral", ["w1"], r'named "w1". There are: down_proj, gate_up_proj'),
        ("deepseek_v3", ["shared_experts.gate_proj"], "There are: down_proj, gate_up_proj"),
    ],
)
def test_targets_that_are_no_experts_are_refused(architecture: str, targets: list[str], message: str) -> None:
    model = prepare_model(make(architecture))
    with pytest.raises(UnsupportedAdapter, match=message):
        adapters.inject(model, dataclasses.replace(ALL, target_parameters=targets), seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters()), "refused before anything changed"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("world"), num_train=6, num_validation=3)
    base = world.directory / "mixture"
    save_policy(prepare_model(make("qwen3_moe")), base)
    return dataclasses.replace(world, base_model_dir=str(base))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_whole_run_is_verified_and_resumes_exactly(precision: str, world: World) -> None:
    lora = LoraPlan(rank=2, alpha=4.0, target_parameters="all-experts")
    plan = world.plan(f"{precision}-whole", lora=lora, precision=precision)
    observer = RecordingObserver()
    whole = run(plan, observer)
    assert whole.summary["verification"]["num_rows"] == 3
    kinds = [kind for _, kind in observer.events]
    assert "adapter_reach" not in kinds, "the router alone is left out"
    assert whole.adapter_dir is not None
    document = json.loads((whole.adapter_dir / adapter_files.CONFIG_FILE).read_text())
    assert "model.layers.0.mlp.experts.gate_up_proj" in document["target_parameters"]
    model = load_causal_lm(world.base_model_dir, dtype=torch.float32)
    adapter_files.load_adapter(model, whole.adapter_dir)
    assert coverage(model).share > 0.95
    assert all(tensor.abs().sum() > 0 for name, tensor in adapter_state(model).items() if "experts" in name)
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=str(world.directory / f"{precision}-piece")), 4)
    assert untimed(seen.points) == untimed(observer.points)
    assert tree_bytes(pieces.policy_dir) == tree_bytes(whole.policy_dir)


def test_without_adapters_on_experts_a_run_says_how_to_have_them(world: World) -> None:
    messages = {}

    class Reader(RecordingObserver):
        def event(self, level: str, kind: str, message: str, data: Mapping[str, Any]) -> None:
            messages[kind] = message

    run(world.plan("reach", lora=LoraPlan(rank=2, alpha=4.0), sft=None), Reader())
    assert '"target_parameters": "all-experts"' in messages["adapter_reach"]


def test_dense_models_have_no_experts_to_adapt(world: World) -> None:
    dense = str(world.directory / "base")
    with pytest.raises(BadPlan, match="target_parameters"):
        run(
            world.plan("dense", base_model_dir=dense, lora=LoraPlan(target_parameters="all-experts")),
            RecordingObserver(),
        )
