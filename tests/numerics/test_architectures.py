"""Kinds of architectures that the engine's short cuts do not fit: each is right, or refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import VOCABULARY, Row, make_model, make_stock_model, stock_sums, write_rows
from safetensors.torch import load_file, save_file
from tiny_runs import RecordingObserver, World
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.training.data.micro_batches import split_micro_batches
from core.training.data.order import partners
from core.training.data.packing import pack_pairs, pack_responses
from core.training.data.texts import SIDES
from core.training.failures import BadBaseModel, BadData
from core.training.model.adapters import adapters, merging
from core.training.model.adapters.targets import UnsupportedAdapter, coverage, find_targets
from core.training.model.capabilities import capabilities_of
from core.training.model.generation import generate
from core.training.model.loading import UnsupportedModel, load_causal_lm, prepare_model, save_policy
from core.training.model.logps import pair_logps
from core.training.pipeline import run
from core.training.plan import LoraPlan
from core.training.stages.micro_batch import RowSizes, checkpoint_activations
from core.training.stages.model_checks import check_lengths, check_token_ids, packing_holds

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "vocab_size": VOCABULARY,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
LLAMA4 = {"num_local_experts": 2, "intermediate_size_mlp": 48, "head_dim": 8, "attention_chunk_size": 64}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 64,
    "factor": 4.0,
}


def make(architecture: str, factor: float = 5.0, **options: object) -> PreTrainedModel:
    """A random model as transformers makes it, with weights large enough that a token's context shows."""
    config = AutoConfig.for_model(architecture, **(SIZES | options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(factor)
    return model.eval()


def rows_of(*lengths: tuple[int, ...]) -> list[Row]:
    rng = np.random.default_rng(3)
    return [tuple(rng.integers(2, VOCABULARY, length).tolist() for length in row) for row in lengths]


@torch.no_grad()
def test_a_window_that_only_the_mask_knows_is_kept(tmp_path: Path) -> None:
    options = {"sliding_window": 60, "num_local_experts": 4, "num_experts_per_tok": 2}
    stock, rows = make("phimoe", **options), rows_of((90, 40, 30), (9, 5, 7))
    model = prepare_model(make("phimoe", **options))
    assert capabilities_of(model).longest_packable == 60
    found = pair_logps(model, pack_pairs(write_rows(tmp_path, rows), [0, 1], "cpu"))
    torch.testing.assert_close(found.chosen.sums, stock_sums(stock, rows, 0), atol=2e-3, rtol=0)
    torch.testing.assert_close(found.rejected.sums, stock_sums(stock, rows, 1), atol=2e-3, rtol=0)


def test_what_begins_after_the_probe_shows_on_the_longest_row(tmp_path: Path) -> None:
    """A window that no layer asks for and no configuration names: the mask of a patched model alone has it."""
    model = prepare_model(make("llama"))
    data = write_rows(tmp_path, rows_of((90, 40, 30), (9, 5, 7)))
    assert packing_holds(model, data)
    plain_forward = model.model.forward

    def windowed(*args: object, **kwargs: object) -> object:
        if "packed_layout" not in kwargs and kwargs["input_ids"].shape[1] > 60:
            places = torch.arange(kwargs["input_ids"].shape[1])
            distance = places[:, None] - places[None]
            kwargs["attention_mask"] = ((distance >= 0) & (distance < 60))[None, None]
        return plain_forward(*args, **kwargs)

    model.model.forward = windowed
    assert not packing_holds(model, data)
    assert packing_holds(model, data.select(np.array([1])))


@torch.no_grad()
def test_a_row_over_the_length_of_dynamic_rope_does_not_depend_on_the_rows_before(tmp_path: Path) -> None:
    rows = rows_of((40, 60, 50), (60, 110, 90))
    options = {"max_position_embeddings": 64, "rope_parameters": DYNAMIC}
    data, model = write_rows(tmp_path, rows), prepare_model(make("llama", **options))
    first = pair_logps(model, pack_pairs(data, [0], "cpu")).chosen.sums
    longer = pair_logps(model, pack_pairs(data, [1], "cpu")).chosen.sums
    again = pair_logps(model, pack_pairs(data, [0], "cpu")).chosen.sums
    assert first.tolist() == again.tolist()
    for row, found in ((rows[0], first), (rows[1], longer)):
        expected = stock_sums(make("llama", **options), [row], 0)  # a new model: nothing ran before
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_longrope_over_its_length_is_computed_again_with_the_same_attention(tmp_path: Path) -> None:
    model = prepare_model(
        make("phi3", original_max_position_embeddings=64, sliding_window=None, rope_parameters=LONGROPE)
    )
    data = write_rows(tmp_path, rows_of((90, 40, 30), (10, 9, 8)))
    gradients = []
    for _ in range(2):
        model.zero_grad()
        for row in (0, 1):
            pair_logps(model, pack_pairs(data, [row], "cpu")).chosen.sums.sum().backward()
        gradients.append(model.model.layers[0].mlp.down_proj.weight.grad.clone())
        assert checkpoint_activations(model)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_later_tokens_is_refused(architecture: str, dtype: torch.dtype) -> None:
    options = {"embedding_size": 32, "pad_token_id": 0}
    with pytest.raises(UnsupportedModel, match="no causal language model"):
        prepare_model(make(architecture, factor=1.0, **options).to(dtype))


def test_the_same_model_as_a_decoder_is_taken() -> None:
    prepare_model(make("bert", is_decoder=True, pad_token_id=0))


@pytest.mark.parametrize("architecture", ["mamba", "llama"])
def test_answers_with_and_without_a_cache(architecture: str) -> None:
    stock, model = make_stock_model(architecture).eval(), make_model(architecture)
    assert capabilities_of(model).has_cache == (architecture == "llama")
    sequence = [5, 6, 7]
    with torch.no_grad():
        for _ in range(6):
            sequence.append(int(stock(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1].argmax()))
    assert generate(model, [5, 6, 7], 6, []) == sequence[3:]


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("falcon", {"multi_query": True, "new_decoder_architecture": False, "alibi": False}),
        ("mamba", {"state_size": 4}),
        (
            "llama4_text",
            {"num_local_experts": 2, "intermediate_size_mlp": 48, "head_dim": 8, "attention_chunk_size": 64},
        ),
        ("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_adapters_train_and_merge(architecture: str, options: dict[str, object], tmp_path: Path) -> None:
    """The merged weights give what the adapted model gave, so every adapter was on a plain product."""
    model = prepare_model(make(architecture, factor=2.0, **options))
    parameters = adapters.inject(model, adapters.LoraConfig(rank=2, alpha=4), seed=0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = pack_pairs(write_rows(tmp_path, rows_of((9, 5, 7), (6, 11, 3))), [0, 1], "cpu")
    adapted = pair_logps(model, batch).chosen.sums
    adapted.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)
    assert not any("router" in name for name, _ in adapters.adapters(model))
    plain = make(architecture, factor=2.0, **options)
    plain.load_state_dict(merging.merged_state_dict(model)[0])
    with torch.no_grad():
        merged = pair_logps(prepare_model(plain), batch).chosen.sums
    torch.testing.assert_close(adapted.detach(), merged, atol=1e-3, rtol=0)


def multimodal() -> PreTrainedModel:
    """Gemma 3 with a tower for images of four patches."""
    text = AutoConfig.for_model("gemma3_text", **(SIZES | {"head_dim": 8, "sliding_window": 60}))
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=text.to_dict(),
        vision_config=vision | {"image_size": 28, "patch_size": 14, "num_channels": 3},
        mm_tokens_per_image=4,
        image_token_index=7,
        boi_token_index=8,
        eoi_token_index=9,
        eos_token_id=1,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def test_rows_are_not_held_against_the_patches_of_an_image(tmp_path: Path) -> None:
    world, observer = World.make(tmp_path), RecordingObserver()
    save_policy(prepare_model(multimodal()), tmp_path / "other")
    result = run(world.plan("run", base_model_dir=str(tmp_path / "other"), sft=None), observer)
    assert result.summary["verification"]["longest"] > 4
    assert observer.events == []


def test_text_attends_packed_where_the_whole_keeps_its_own_attention(tmp_path: Path) -> None:
    """GOT-OCR 2: only its text takes another attention function, and must be given back its own one."""
    text = AutoConfig.for_model("qwen2", **SIZES)
    vision = {"hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 16, "mlp_dim": 16, "window_size": 2, "global_attn_indexes": [0]}
    config = AutoConfig.for_model("got_ocr2", text_config=text.to_dict(), vision_config=vision, eos_token_id=1)
    stock = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    stock.save_pretrained(tmp_path / "base")
    rows = rows_of((9, 5, 7), (6, 11, 3))
    data = write_rows(tmp_path / "rows", rows)
    model = load_causal_lm(tmp_path / "base", dtype=torch.float32)
    assert packing_holds(model, data)
    assert capabilities_of(model).is_packable
    with torch.no_grad():
        found = pair_logps(model, pack_pairs(data, range(2), "cpu")).chosen.sums
        torch.testing.assert_close(found, stock_sums(stock, rows, 0), rtol=0, atol=1e-4)
    assert len(generate(model, [5, 6, 7], 4, [])) == 4


@pytest.mark.parametrize(
    "rope",
    [
        DYNAMIC,
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 128},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5}
        | {"original_max_position_embeddings": 64},
    ],
    ids=lambda rope: str(rope["rope_type"]),
)
def test_scaled_rotary_positions_pass_verification(rope: dict[str, object], tmp_path: Path) -> None:
    """Of a base model that transformers 5 saved: the policy names the scaling as transformers 4 did besides."""
    world = World.make(tmp_path)
    make("llama", rope_parameters=rope).save_pretrained(tmp_path / "other")
    result = run(world.plan("run", base_model_dir=str(tmp_path / "other"), sft=None), RecordingObserver())
    assert result.summary["verification"]["num_rows"] == 5


def test_adapters_leave_out_what_text_does_not_pass_through() -> None:
    model = prepare_model(multimodal())
    names = find_targets(model, ["q_proj"])
    assert len(names) == 2
    assert not any("vision" in name for name in names)
    with pytest.raises(UnsupportedAdapter, match="image towers"):
        find_targets(model, ["fc1"])


def test_the_reach_of_an_adapter_on_a_mixture_of_experts() -> None:
    model = prepare_model(make("mixtral", num_local_experts=4, num_experts_per_tok=2))
    adapters.inject(model, adapters.LoraConfig(rank=2, alpha=4), seed=0)
    found = coverage(model)
    attention, experts, router = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32), 2 * 4 * 3 * 32 * 48, 2 * 4 * 32
    assert found.share == pytest.approx(attention / (attention + experts + router))
    assert found.left_out[0] == "model.layers.*.mlp.experts.gate_up_proj"


def test_partners_of_unpaired_rows_keep_to_the_budget(tmp_path: Path) -> None:
    data = write_rows(tmp_path, [row[:2] for row in rows_of(*[(10, 200)] * 8)], kind="unpaired", good=range(4))
    data = data.with_partners(partners(len(data), 0))
    for side in SIDES:
        batches = [
            pack_responses(data, rows, "cpu", side=side) for rows in split_micro_batches(data, range(8), 512, side=side)
        ]
        assert [batch.num_tokens for batch in batches] == [420] * 4
    assert RowSizes.of(data) == RowSizes(longest=210, scored_share=200 / 210)


def test_token_ids_and_rows_that_the_model_has_no_place_for(tmp_path: Path) -> None:
    model = make_model("gpt2")  # 128 positions
    short = write_rows(tmp_path / "short", [([5, 6, 7], [8, 9], [10])])
    check_token_ids(model, [short])
    check_lengths(model, [short])
    with pytest.raises(BadBaseModel, match=f"token id {VOCABULARY}, and its embeddings have {VOCABULARY} rows"):
        check_token_ids(model, [write_rows(tmp_path / "id", [([5, 6, 7], [8, VOCABULARY], [10])])])
    with pytest.raises(BadData, match=r"Line 1 has 130 tokens.*positions for 128"):
        check_lengths(model, [write_rows(tmp_path / "long", rows_of((70, 20, 60)))])


@pytest.mark.parametrize(
    ("architecture", "options", "events"),
    [
        ("mixtral", {"num_local_experts": 4}, ["router_loss_left_out", "adapter_reach"]),
        ("mamba", {"state_size": 4}, ["one_at_a_time", "no_cache"]),
    ],
)
def test_a_whole_run_says_what_is_otherwise_once(
    architecture: str, options: dict[str, object], events: list[str], tmp_path: Path
) -> None:
    world, observer = World.make(tmp_path), RecordingObserver()
    save_policy(prepare_model(make(architecture, **options)), tmp_path / "other")
    run(world.plan("run", base_model_dir=str(tmp_path / "other"), lora=LoraPlan(rank=2, alpha=4.0)), observer)
    found = [kind for _, kind in observer.events]
    assert found[: len(events)] == events
    assert len(found) == len(set(found))


@pytest.mark.parametrize("key", ["compression_config", None])
def test_weights_quantised_in_disguise_are_refused(key: str | None, tmp_path: Path) -> None:
    save_policy(prepare_model(make("llama")), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights |= {name: weights[name].to(torch.float8_e4m3fn), f"{name}_scale": torch.ones(1)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    if key:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: {"quant_method": "compressed-tensors"}}))
    with pytest.raises(UnsupportedModel, match="quantised"):
        load_causal_lm(tmp_path, dtype=torch.float32)


def test_a_padding_id_without_a_row_is_refused(tmp_path: Path) -> None:
    save_policy(prepare_model(make("llama")), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token_id": VOCABULARY}))
    with pytest.raises(UnsupportedModel, match="pad_token_id"):
        load_causal_lm(tmp_path, dtype=torch.float32)


def test_rows_beyond_the_context_are_counted(tmp_path: Path) -> None:
    world, observer = World.make(tmp_path), RecordingObserver()
    save_policy(prepare_model(make("llama", max_position_embeddings=16)), tmp_path / "short")
    run(world.plan("run", base_model_dir=str(tmp_path / "short")), observer)
    assert ("warning", "rows_beyond_context") in observer.events
