"""For tests of the engine: small models in memory, tokenised rows made by hand, and what transformers itself computes.

The models' weights are scaled up, so that a token's context changes its probability a lot: an attention mask that is
wrong by one token shows.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.domain.training import encoded_format
from core.training.data.encoded import EncodedData
from core.training.model.loading import prepare_model

VOCABULARY = 97
PROMISED = ("gpt2", "gpt_neox", "llama", "qwen2", "gemma", "mistral")
"""Architectures that must work, packed."""
WITH_OWN_HEAD_OR_SCORES = ("gemma2", "cohere", "phi", "granite")
"""Logits scaled, capped or with a bias; attention with soft cap and window."""
NOT_PACKABLE = ("bloom", "mamba")
"""No attention interface, or no attention at all."""

_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_LLAMA_LIKE = _SIZES | {"max_position_embeddings": 128, "num_key_value_heads": 2, "attention_dropout": 0.2}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
CONFIGS: dict[str, dict[str, object]] = {
    "gpt2": _GPT2 | {"attn_pdrop": 0.2, "embd_pdrop": 0.2, "resid_pdrop": 0.2},
    "gpt_neox": _SIZES | {"max_position_embeddings": 128, "attention_dropout": 0.2, "hidden_dropout": 0.2},
    "llama": _LLAMA_LIKE | {"tie_word_embeddings": True},
    "qwen2": _LLAMA_LIKE | {"tie_word_embeddings": False},
    "gemma": _LLAMA_LIKE | {"num_key_value_heads": 1, "head_dim": 16},
    "mistral": _LLAMA_LIKE | {"sliding_window": 6},
    "gemma2": _LLAMA_LIKE
    | {
        "head_dim": 8,
        "sliding_window": 6,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 8,
    },
    "cohere": _LLAMA_LIKE | {"logit_scale": 0.25},
    "phi": _SIZES | {"max_position_embeddings": 128, "embd_pdrop": 0.2, "resid_pdrop": 0.2},
    "granite": _LLAMA_LIKE | {"logits_scaling": 4.0, "embedding_multiplier": 2.0},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.2, "attention_dropout": 0.2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}

Row = tuple[Sequence[int], ...]
"""Prompt, first response, and second response if there is one."""


def make_stock_model(architecture: str, **options: object) -> PreTrainedModel:
    """A model as transformers makes it, dropout above zero."""
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": None, "bos_token_id": None, "eos_token_id": 1}
    config = AutoConfig.for_model(architecture, **(tokens | CONFIGS[architecture] | options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(8)
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_model(architecture: str, **options: object) -> PreTrainedModel:
    """The same, prepared for the engine."""
    return prepare_model(make_stock_model(architecture, **options))


def write_rows(
    directory: Path,
    rows: Sequence[Row],
    unscored: Collection[tuple[int, int, int]] = (),
    kind: str = "preference",
    good: Collection[int] = (),
) -> EncodedData:
    """Rows as tokenisation would write them; every response token scored but those in `unscored`.

    Args:
        unscored: (row, 0 for the first or 1 for the second response, offset in it).
        good: rows whose label is 1.
    """
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
        starts += [len(tokens)] * (3 - len(starts))
        table.append([index + 1, *starts, len(tokens), int(index in good)])
    directory.mkdir(parents=True, exist_ok=True)
    meta = {"version": encoded_format.VERSION, "kind": kind, "num_rows": len(table), "num_tokens": len(tokens)}
    (directory / encoded_format.META_FILE).write_text(json.dumps(meta | {"digest": "0" * 64}))
    np.asarray(tokens, "<i4").tofile(directory / encoded_format.TOKENS_FILE)
    np.asarray(scored, "u1").tofile(directory / encoded_format.SCORED_FILE)
    np.asarray(table, "<i8").tofile(directory / encoded_format.ROWS_FILE)
    return EncodedData.open(directory)


def random_rows() -> list[Row]:
    """Six pairs; prompts of 1 to 17 tokens, responses of 1 to 13."""
    rng = np.random.default_rng(3)
    lengths = [(9, 5, 7), (1, 4, 2), (17, 1, 13), (6, 11, 3), (12, 8, 10), (3, 6, 1)]
    return [tuple(rng.integers(2, VOCABULARY, length).tolist() for length in row) for row in lengths]


def stock_token_logps(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """[response] log p of every response token, by transformers' own forward pass of this one sequence."""
    ids = torch.tensor([[*prompt, *response]])
    logps = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)
    places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return torch.stack([logps[place, token] for place, token in zip(places, response, strict=True)])


def stock_sums(model: PreTrainedModel, rows: Iterable[Row], side: int) -> Tensor:
    """[rows] sums of `stock_token_logps` of the first (0) or second (1) responses."""
    return torch.stack([stock_token_logps(model, row[0], row[1 + side]).sum() for row in rows])
