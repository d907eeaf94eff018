"""Tiny models of the architectures the engine promises, and tokenised rows made by hand."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
)

from core.domain import encoded_format
from core.training.encoded_data import EncodedData

VOCABULARY = 97
DROPOUTS = {
    "gpt2": {"attn_pdrop": 0.2, "embd_pdrop": 0.2, "resid_pdrop": 0.2},
    "gpt_neox": {"attention_dropout": 0.2, "hidden_dropout": 0.2},
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
}
EXTRAS: dict[str, dict[str, object]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "tie_word_embeddings": True},
    "gpt_neox": {"tie_word_embeddings": False},
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 6},
    "gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 6,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 8,
    },
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.25},
    "phi": {},
    "bloom": {"n_layer": 2, "n_head": 4},
}
ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "qwen2", "gemma", "mistral")

Row = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Prompt, first and second response."""


def make_config(architecture: str) -> object:
    sizes = {
        k: v
        for k, v in SIZES.items()
        if not (architecture == "gpt2" and k.startswith(("hidden", "inter", "num", "max")))
    }
    dropouts = DROPOUTS.get(architecture, {"attention_dropout": 0.2})
    return AutoConfig.for_model(architecture, **(sizes | dropouts | EXTRAS[architecture]))


@pytest.fixture
def make_model() -> Callable[[str], PreTrainedModel]:
    """A stock model as transformers makes it, with weights large enough that context matters."""

    def make(architecture: str) -> PreTrainedModel:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(make_config(architecture))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(6)
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[Sequence[Row]], EncodedData]:
    """Rows as `core.tokenization` would write them; all response tokens scored."""

    def write(rows: Sequence[Row], unscored: frozenset[tuple[int, int, int]] = frozenset()) -> EncodedData:
        """`unscored` holds (row, response, offset)."""
        tokens: list[int] = []
        scored: list[int] = []
        table = []
        for index, (prompt, *responses) in enumerate(rows):
            starts = [len(tokens)]
            tokens += prompt
            scored += [0] * len(prompt)
            for side, response in enumerate(responses):
                starts.append(len(tokens))
                tokens += response
                scored += [int((index, side, offset) not in unscored) for offset in range(len(response))]
            table.append([index + 1, *starts, len(tokens), 0])
        directory = tmp_path / f"encoded-{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        meta = {
            "version": encoded_format.VERSION,
            "kind": "preference",
            "num_rows": len(table),
            "num_tokens": len(tokens),
            "digest": "0" * 64,
        }
        (directory / encoded_format.META_FILE).write_text(json.dumps(meta))
        np.asarray(tokens, "<i4").tofile(directory / encoded_format.TOKENS_FILE)
        np.asarray(scored, "u1").tofile(directory / encoded_format.SCORED_FILE)
        np.asarray(table, "<i8").tofile(directory / encoded_format.ROWS_FILE)
        return EncodedData.open(directory)

    return write


@pytest.fixture
def random_rows() -> list[Row]:
    """Prompts from 1 to 17 tokens, responses from 1 to 13, no two lengths alike."""
    rng = np.random.default_rng(3)
    lengths = [(9, 5, 7), (1, 4, 2), (17, 1, 13), (6, 11, 3), (12, 8, 10), (3, 6, 1)]
    return [tuple(rng.integers(2, VOCABULARY, n).tolist() for n in row) for row in lengths]  # type: ignore[misc]
