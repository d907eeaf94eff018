"""Tiny random base models as hubs hold them, published by the service's own writers: what the matrix of loaders reads.

The expected values come from the model in memory, before any file of it was written.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny_models import VOCAB_SIZE, write_llama_2_tokenizer, write_tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.model.adapters.adapter_files import save_adapter
from core.training.model.adapters.adapters import LoraConfig, adapters, inject
from core.training.model.loading import load_causal_lm, save_policy
from core.training.model.policies import ADAPTER_DIR
from worker.processes.trainer.policy_folder import PolicyFolder

NUM_TOKENS = 200
WINDOW = 64
MESSAGES = [{"role": "user", "content": "How do I keep the house style? Say what to do first."}]
_LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}
_LLAMA_3 |= {"original_max_position_embeddings": 64}
_LONG = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.5] * 8}
_SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_SIZES |= {"max_position_embeddings": 512}
_GROUPED = _SIZES | {"num_key_value_heads": 2, "head_dim": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
_GPT_2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
_TWO_BASES = {
    "full_attention": {"rope_type": "default", "rope_theta": 5e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One architecture with settings that a loader may lose."""

    model_type: str
    values: dict[str, Any]
    """Of its configuration in transformers 5."""
    former: dict[str, Any] = field(default_factory=dict)
    """The keys by which transformers 4 wrote them; empty: the folder is as transformers 5 saves it."""
    tokenizer_class: str | None = "GPT2Tokenizer"
    is_llama_2: bool = False
    """The tokenizer; else it is byte-level."""


def _rope(theta: float, **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": theta, "rope_type": "default"} | scaling}


def _former(theta: float, scaling: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"rope_theta": theta, "rope_scaling": scaling}


SHAPES = {
    "llama, base 100000": Shape(model_type="llama", values=_GROUPED | _rope(1e5), former=_former(1e5)),
    "llama, saved by transformers 5": Shape(model_type="llama", values=_GROUPED | _rope(1e5), tokenizer_class=None),
    "llama, Llama 3 scaling": Shape(
        model_type="llama", values=_GROUPED | _rope(5e5, **_LLAMA_3), former=_former(5e5, _LLAMA_3)
    ),
    "llama, Llama 2 tokenizer": Shape(
        model_type="llama",
        values=_GROUPED | _rope(1e4),
        former=_former(1e4),
        tokenizer_class="LlamaTokenizer",
        is_llama_2=True,
    ),
    "mistral, window": Shape(
        model_type="mistral", values=_GROUPED | _rope(1e6) | {"sliding_window": WINDOW}, former=_former(1e6)
    ),
    "qwen2": Shape(model_type="qwen2", values=_SIZES | {"num_key_value_heads": 2} | _rope(1e6), former=_former(1e6)),
    "qwen3": Shape(model_type="qwen3", values=_GROUPED | _rope(1e6), former=_former(1e6)),
    "qwen3_moe": Shape(model_type="qwen3_moe", values=_GROUPED | _EXPERTS | _rope(1e6), former=_former(1e6)),
    "gemma2, window": Shape(
        model_type="gemma2",
        values=_GROUPED
        | _rope(1e4)
        | {"query_pre_attn_scalar": 16, "sliding_window": WINDOW}
        | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 2.0},
        former={"rope_theta": 1e4},
    ),
    "gemma3, two bases": Shape(
        model_type="gemma3_text",
        values=_GROUPED
        | {
            "num_hidden_layers": 6,
            "query_pre_attn_scalar": 16,
            "sliding_window": WINDOW,
            "rope_parameters": _TWO_BASES,
        },
        former={"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": None},
    ),
    "phi3": Shape(model_type="phi3", values=_SIZES | {"pad_token_id": 0} | _rope(2e4), former=_former(2e4)),
    "phi3, longrope": Shape(
        model_type="phi3",
        values=_SIZES
        | {"pad_token_id": 0, "original_max_position_embeddings": 256}
        | _rope(2e4, **_LONG, rope_type="longrope", original_max_position_embeddings=256),
        former=_former(2e4, _LONG) | {"original_max_position_embeddings": 256},
    ),
    "olmo2": Shape(model_type="olmo2", values=_SIZES | _rope(5e5), former=_former(5e5)),
    "gpt_neox": Shape(
        model_type="gpt_neox",
        values=_SIZES | _rope(3e4, partial_rotary_factor=0.5),
        former={"rotary_pct": 0.5, "rotary_emb_base": 30000},
    ),
    "gpt2": Shape(model_type="gpt2", values=_GPT_2),
}


def publish(shape: Shape, folder: Path) -> dict[str, Any]:
    """Writes base and policy (with an adapter) below `folder`; returns what every loader must find in the policy."""
    base, policy = folder / "base", folder / "policy"
    base.mkdir(parents=True)
    expected = _write_base(shape, base)
    tokenizer = PairTokenizer.open(base)
    model = load_causal_lm(base, dtype=torch.float32)
    save_policy(model, policy, end_ids=tokenizer.eos_ids)
    config = LoraConfig(rank=4, alpha=8.0)
    inject(model, config, seed=0)
    for _, layer in adapters(model):
        layer.lora_B.data.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    save_policy(model, folder / "merged", end_ids=tokenizer.eos_ids)
    save_adapter(model, config, policy / ADAPTER_DIR)
    PolicyFolder(base, str(base), tokenizer).complete(policy)
    prompt = tokenizer.encode_prompt([{"role": "user", "content": MESSAGES[0]["content"]}])
    return expected | {"prompt_ids": prompt, "end_ids": list(tokenizer.eos_ids), "messages": MESSAGES}


def token_logps(model: Any, ids: list[int]) -> list[float]:
    """[T-1] of each token after the first."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logps = model(input_ids=tokens).logits[0, :-1].float().log_softmax(-1)
    values: list[float] = logps.gather(-1, tokens[0, 1:, None])[:, 0].tolist()
    return values


def _write_base(shape: Shape, base: Path) -> dict[str, Any]:
    config = AutoConfig.for_model(
        shape.model_type, vocab_size=VOCAB_SIZE, bos_token_id=1, eos_token_id=0, attn_implementation="eager",
        **shape.values,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, 0.5 if "embed" in name or "wte" in name else 0.2)
        ids = torch.randint(3, VOCAB_SIZE, (NUM_TOKENS,)).tolist()
    logps = token_logps(model, ids)
    model.save_pretrained(base)
    document = json.loads((base / "config.json").read_text())
    if shape.former:
        new = ("rope_parameters", "dtype", "transformers_version")
        document = {key: value for key, value in document.items() if key not in new} | shape.former
        document |= {"torch_dtype": "float32", "transformers_version": "4.46.0"}
    (base / "config.json").write_text(json.dumps(document))
    if shape.is_llama_2:
        write_llama_2_tokenizer(base, tokenizer_class=shape.tokenizer_class, legacy=False)
        return {"ids": ids, "logps": logps}
    write_tiny_tokenizer(base)
    tokenizer_config = json.loads((base / "tokenizer_config.json").read_text()) | {"eos_token": "<|endoftext|>"}
    tokenizer_config["tokenizer_class"] = shape.tokenizer_class or "TokenizersBackend"
    (base / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return {"ids": ids, "logps": logps}
