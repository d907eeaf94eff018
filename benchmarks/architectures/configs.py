"""Tiny configurations of transformers' causal language models: two or three layers, some ten thousand weights.

A configuration takes the small value of every field it has; what some types need besides stands in `SPECIAL`.
"""

import inspect
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

VOCABULARY = 128
WINDOW = 60
_WIDTH, _INNER, _HEADS, _POSITIONS = 32, 48, 4, 512

_WIDTHS = ("hidden_size", "n_embd", "d_model", "emb_dim", "embedding_size", "word_embed_proj_dim", "embedding_dim")
_INNERS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff", "dff", "d_inner", "expert_ffn_size")
_INNERS_OF_ENCODERS = ("encoder_ffn_dim", "decoder_ffn_dim", "intermediate_size_mlp", "shared_intermediate_size")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
_HEAD_COUNTS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")

SMALL: dict[str, Any] = {
    **dict.fromkeys(_WIDTHS, _WIDTH),
    **dict.fromkeys((*_INNERS, *_INNERS_OF_ENCODERS), _INNER),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys((*_HEAD_COUNTS, "encoder_attention_heads"), _HEADS),
    **dict.fromkeys(_LENGTHS, _POSITIONS),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(("vocab_size", "n_words", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size"), WINDOW),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "expansion_ratio": 2,
    "attention_types": [[["global", "local"], 1]],
    "num_experts_per_tok": 2,
    "moe_top_k": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "state_size": 4,
    "mamba_d_state": 4,
    "mamba_d_head": 8,
    "mamba_n_heads": 8,
    "mamba_n_groups": 1,
    "mamba_dt_rank": 4,
    "mamba_chunk_size": 16,
    "chunk_size": 16,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "lru_width": _WIDTH,
    "query_pre_attn_scalar": 8,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "laurel_rank": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
}
_WINDOWED = {"layer_types": ["sliding_attention", "full_attention"]}
_RECURRENT = {"layer_types": ["linear_attention", "full_attention"]}
_CONVOLVED = {"layer_types": ["conv", "full_attention"]}
_STARTED = {"bos_token_id": 1}
_SPARSE = {"num_key_value_heads": _HEADS, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 512}
_LATENT = {"num_key_value_heads": _HEADS}
_HYBRID = ["linear_attention", "hybrid", "linear_attention", "hybrid"]
SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("cohere2", "gpt_oss", "olmo3", "exaone4", "gemma2", "gemma3_text"), _WINDOWED),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "olmo_hybrid"), _RECURRENT),
    "qwen4_exp_text": {
        **_RECURRENT,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 512,
        "indexer_compress_ratio": 1,
        "hc_lowrank": 8,
        "ple_layer_ids": [1],
        "ple_embed_dim": 16,
        "ngram_vocab_size_base": 256,
        "make_ngram_vocab_size_divisible_by": 8,
        "heads_per_ngram": 2,
        "split_ngram_parts": 1,
    },
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm3"), _CONVOLVED),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu", "axk1"), _LATENT),
    **dict.fromkeys(("axk2", "deepseek_v32", "glm_moe_dsa"), _SPARSE),
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {name: {"rope_type": "default", "rope_theta": 1e4} for name in _WINDOWED["layer_types"]},
    },
    "codegen": {"rotary_dim": 8},
    "cwm": {"bos_token_id": 1, "eos_token_id": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": _INNER, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots3_note_text": {
        **_SPARSE,
        "head_dim": 16,
        "num_key_value_heads": _HEADS,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "alibi": False},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        **_WINDOWED,
        "activation_sparsity_pattern": [0.0, 0.0],
        "altup_num_inputs": 2,
        "intermediate_size": [_INNER, _INNER],
    },
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "llama4_text": {"attention_chunk_size": 32, "moe_layers": [1], "interleave_moe_layer_step": 2},
    "kimi_linear": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "num_key_value_heads": _HEADS,
    },
    "longcat_flash": {"num_layers": 1, "expert_ffn_hidden_size": 16, "zero_expert_num": 1, "moe_topk": 2, **_LATENT},
    **dict.fromkeys(("modernbert-decoder", "mllama", "mllama_text_model", "emu3", "emu3_text_model"), _STARTED),
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "expand": 2},
    "nemotron_h": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "attention", "moe"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "ssm_state_size": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]},
    "reformer": {"attn_layers": ["local", "local"], "axial_pos_embds": False, "is_decoder": True},
    "roformer": {"is_decoder": True},
    "smollm3": {"no_rope_layers": [1, 0]},
    "xlstm": {"num_blocks": 2},
    "xmod": {"default_language": "en_XX", "is_decoder": True},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": _HYBRID, "layer_types": _HYBRID, "use_mamba_kernels": False},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": _HYBRID, "layer_types": _HYBRID, "chunk_size": 16},
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid"]},
}


def tiny_config(model_type: str) -> PretrainedConfig:
    """The configuration of one type, small.

    Raises:
        Exception: whatever the type's configuration raises where no set of small values fits it.
    """
    return _tiny(CONFIG_MAPPING[model_type])


def _tiny(config_type: type[PretrainedConfig]) -> PretrainedConfig:
    """The configuration of one class; those inside it, of text, images and sound, are made small too."""
    special = SPECIAL.get(config_type.model_type, {})
    fields = _fields(config_type)
    values = {name: value for name, value in SMALL.items() if name in fields} | _tiny_parts(config_type) | special
    if "layer_types" in fields:
        values.setdefault("layer_types", None)
    attempts = [values, _without(values, "head_dim"), _without(values, "layer_types")]
    for attempt in attempts[:-1]:
        try:
            return config_type(**attempt)
        except Exception:  # noqa: BLE001 - a foreign type's own check, of any kind: the next attempt may pass it
            continue
    return config_type(**attempts[-1])


def _tiny_parts(config_type: type[PretrainedConfig]) -> dict[str, Any]:
    parts = {}
    for name, part_type in config_type.sub_configs.items():
        if part_type is AutoConfig:  # whatever the default is
            part_type = type(getattr(config_type(), name, None))
        if issubclass(part_type, PretrainedConfig) and part_type.model_type:
            parts[name] = _tiny(part_type)
    return parts


def _fields(config_type: type[PretrainedConfig]) -> set[str]:
    declared = set(inspect.signature(config_type.__init__).parameters)
    declared |= set(getattr(config_type, "__dataclass_fields__", {}))
    return declared | set(config_type.attribute_map) | set(vars(config_type()))


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}
