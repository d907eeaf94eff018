"""What programs other than this transformers read in a saved policy's folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_rows import make_stock_model
from transformers import AutoConfig, AutoModelForCausalLM

from core.training.model.config_files import published_config
from core.training.model.loading import load_causal_lm, save_policy

LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 64,
}
LONG = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.5] * 4}
WINDOWS = {
    "full_attention": {"rope_type": "default", "rope_theta": 5e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}


def read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def base_model(directory: Path, architecture: str = "llama", **values: object) -> Path:
    """A folder as transformers 4 wrote it, where `values` say so; None takes a key out."""
    make_stock_model(architecture).save_pretrained(directory)
    config = read(directory / "config.json") | values
    kept = {key: value for key, value in config.items() if value is not ...}
    (directory / "config.json").write_text(json.dumps(kept))
    return directory


def publish(base: Path, policy: Path, **options: Any) -> dict[str, Any]:
    save_policy(load_causal_lm(base, dtype=torch.float32), policy, **options)
    return read(policy / "config.json")


@pytest.mark.parametrize("scaling", [None, LLAMA_3])
def test_keys_of_transformers_4_stay(tmp_path: Path, scaling: dict[str, Any] | None) -> None:
    former = {"rope_theta": 100000.0, "rope_scaling": scaling, "torch_dtype": "bfloat16", "pretraining_tp": 1}
    base = base_model(tmp_path / "base", **former, rope_parameters=..., dtype=..., transformers_version="4.51.3")
    config = publish(base, tmp_path / "policy")
    assert config["rope_theta"] == 100000.0
    assert config["rope_scaling"] == (scaling and scaling | {"rope_theta": 100000.0})
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    assert config["pretraining_tp"] == 1
    assert (config["torch_dtype"], config["dtype"]) == ("float32", "float32"), "as saved, not as the base was"
    read_back = AutoConfig.from_pretrained(tmp_path / "policy")
    assert read_back.rope_parameters == AutoConfig.from_pretrained(base).rope_parameters


def test_a_policy_reads_as_its_base_once_more(tmp_path: Path) -> None:
    """The next round starts from a policy, and SFT's output is saved by the same writer."""
    base = base_model(tmp_path / "base", rope_theta=100000.0, rope_scaling=LLAMA_3, rope_parameters=...)
    first = publish(base, tmp_path / "first")
    assert publish(tmp_path / "first", tmp_path / "second") == first


@pytest.mark.parametrize(
    ("model_type", "parameters", "expected"),
    [
        ("llama", {"rope_type": "default", "rope_theta": 1e5}, {"rope_theta": 1e5, "rope_scaling": None}),
        (
            "llama",
            LLAMA_3 | {"rope_theta": 5e5},
            {"rope_theta": 5e5, "rope_scaling": LLAMA_3 | {"rope_theta": 5e5, "type": "llama3"}},
        ),
        (
            "phi3",
            {**LONG, "rope_type": "longrope", "rope_theta": 2e4, "original_max_position_embeddings": 256}
            | {"partial_rotary_factor": 0.75},
            {"rope_theta": 2e4, "rope_scaling": LONG, "partial_rotary_factor": 0.75}
            | {"original_max_position_embeddings": 256},
        ),
        (
            "gpt_neox",
            {"rope_type": "default", "rope_theta": 3e4, "partial_rotary_factor": 0.25},
            {"rotary_emb_base": 3e4, "rotary_pct": 0.25, "rope_scaling": None},
        ),
        ("gemma3_text", WINDOWS, {"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": None}),
    ],
)
def test_former_names_of_what_only_the_new_ones_say(
    model_type: str, parameters: dict[str, Any], expected: dict[str, Any]
) -> None:
    saved = {"model_type": model_type, "rope_parameters": parameters}
    for document in (published_config({}, saved), published_config({}, {"text_config": saved})["text_config"]):
        assert {key: document.get(key, ...) for key in expected} == expected
        assert document["rope_parameters"] == parameters


def test_other_former_names() -> None:
    assert published_config({}, {"model_type": "gpt2", "n_positions": 64})["n_ctx"] == 64
    assert published_config({}, {"model_type": "qwen3_moe", "num_local_experts": 4})["num_experts"] == 4


def test_a_key_that_would_change_the_model_is_not_kept(tmp_path: Path) -> None:
    """A stale `rope_scaling` beside `rope_parameters` wins in transformers 5, so training never saw it from a base
    whose configuration was edited since: what was trained is what is published."""
    base = base_model(tmp_path / "base", rope_theta=100000.0, rope_scaling=..., rope_parameters=...)
    model = load_causal_lm(base, dtype=torch.float32)
    model.preftune_source_files.config["rope_scaling"] = {"rope_type": "linear", "factor": 2.0}
    model.preftune_source_files.config["unknown_to_transformers"] = 3
    save_policy(model, tmp_path / "policy")
    config = read(tmp_path / "policy" / "config.json")
    assert (config.get("rope_scaling"), config["rope_theta"], config["unknown_to_transformers"]) == (None, 1e5, 3)
    assert AutoConfig.from_pretrained(tmp_path / "policy").rope_parameters["rope_type"] == "default"


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_flag_says_whether_the_head_is_tied(tmp_path: Path, is_tied: bool) -> None:
    base = base_model(tmp_path / "base", tie_word_embeddings=True)
    stock = make_stock_model("llama", tie_word_embeddings=is_tied)
    stock.save_pretrained(base)
    config = read(base / "config.json") | {"tie_word_embeddings": True}
    (base / "config.json").write_text(json.dumps(config))
    assert publish(base, tmp_path / "policy")["tie_word_embeddings"] is is_tied
    head = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").get_output_embeddings().weight
    assert torch.equal(head, stock.get_output_embeddings().weight)


def test_generation_stops_where_turns_end(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    raw = '{"eos_token_id": [2],  "temperature": 0.6, "do_sample": true}'
    (base / "generation_config.json").write_text(raw)
    publish(base, tmp_path / "same", end_ids=(2,))
    assert (tmp_path / "same" / "generation_config.json").read_text() == raw
    publish(base, tmp_path / "more", end_ids=(5, 2))
    document = read(tmp_path / "more" / "generation_config.json")
    assert document == {"eos_token_id": [2, 5], "temperature": 0.6, "do_sample": True}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "more")
    assert model.generation_config.eos_token_id == [2, 5]


def test_generation_stops_where_the_base_model_says_nothing(tmp_path: Path) -> None:
    for name, raw in (("absent", None), ("silent", '{"temperature": 0.6}'), ("broken", "{")):
        base = base_model(tmp_path / name, eos_token_id=2)
        (base / "generation_config.json").unlink()
        if raw is not None:
            (base / "generation_config.json").write_text(raw)
        publish(base, tmp_path / f"{name}-policy", end_ids=(5,))
        document = read(tmp_path / f"{name}-policy" / "generation_config.json")
        assert document["eos_token_id"] == [2, 5]
        assert "_from_model_config" not in document
