"""Checks of a loaded model against the rows of its stage, once, before the first step.

What cannot be trained is refused here, not hours later; what the engine does more slowly for this model is said.
"""

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.domain.training.stored_weights import is_position_table
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch, pack_pairs, pack_responses
from core.training.failures import BadBaseModel, BadData, HostOutOfMemory
from core.training.model.adapters.targets import ALL_LINEAR, coverage, has_expert_targets, num_experts
from core.training.model.capabilities import (
    architecture_of,
    capabilities_of,
    remember,
    run_whole,
    stock_attention,
)
from core.training.model.hidden_states import end_states
from core.training.model.logps import token_logps
from core.training.model.policies import DTYPES, PolicySource, load_policy
from core.training.model.probe import agree, cache_holds
from core.training.model.sharding import compute_dtype, reshard
from core.training.stages.context import RunContext
from core.training.stages.memory_costs import available_bytes, stored_elements

FULL_REACH = 0.95
"""Share of the weights that adapters reach, from which nothing is said."""
_LARGEST_DIFFERENCE = {torch.float32: 0.01}
"""Nats, of any token of the longest row packed and alone. In 16 bits single tokens differ by more."""
_COARSE_MEAN_DIFFERENCE = 0.1
"""Nats, mean over tokens, in 16 bits."""
_MOST_NAMES = 6
_MIB = 2**20
_CACHE_TOKENS = 512
"""Tokens of the longest row whose logits over the whole vocabulary fit into memory."""


def load_checked(context: RunContext, source: PolicySource, data: EncodedData) -> PreTrainedModel:
    """Load the policy that a stage trains on `data`, sharded over the devices of the run, and check it.

    Raises:
        HostOutOfMemory: the machine's memory does not take the weights.
    """
    require_room_for_weights(context)
    model = load_policy(context.plan, source, context.ranks)
    check_model(context, model, data, context.train, context.validation)
    reshard(model)
    return model


def require_room_for_weights(context: RunContext) -> None:
    """Refuse weights that a machine's memory does not take, of a run on one CPU, before the system ends it unasked.

    Raises:
        HostOutOfMemory: they do not fit.
    """
    if context.ranks.size > 1 or context.device.type != "cpu":
        return
    gc.collect()  # the model of the stage before may hang in a circle still
    plan, available = context.plan, available_bytes(context.device)
    needed = stored_elements(Path(plan.base_model_dir)) * DTYPES[plan.precision].itemsize
    if available is not None and needed > available:
        raise HostOutOfMemory(
            f"The machine has too little memory: the base model's weights take {needed // _MIB} MiB, and "
            f"{available // _MIB} MiB are available. Use a smaller base model, or a worker with several devices, which "
            "share the weights.",
            needed_mib=needed // _MIB,
            available_mib=available // _MIB,
        )


def check_model(context: RunContext, model: PreTrainedModel, *splits: EncodedData | None) -> None:
    """Refuse rows that the model cannot take, and disable packing for models whose packed rows are wrong.

    Raises:
        BadBaseModel: the tokenizer gives ids that the embeddings lack.
        BadData: a row is longer than the model's table of positions.
    """
    given = [data for data in splits if data is not None and len(data)]
    check_token_ids(model, given, context.plan.sample_prompts)
    check_lengths(model, given)
    longest = max(given, key=lambda data: int(_lengths(data).max()))
    keep_packing_where_it_holds(model, longest)
    keep_cache_where_it_holds(model, longest)
    _tell(context, model)
    _tell_beyond_context(context, model, given)


def check_token_ids(
    model: PreTrainedModel, splits: list[EncodedData], prompts: tuple[tuple[int, ...], ...] = ()
) -> None:
    """Refuse a token id without a row in the embeddings. Raises BadBaseModel."""
    num_rows = int(model.get_input_embeddings().num_embeddings)
    largest = max([data.largest_token for data in splits] + [max(prompt) for prompt in prompts])
    if largest >= num_rows:
        raise BadBaseModel(
            f"The base model's tokenizer gives the token id {largest}, and its embeddings have {num_rows} rows only. "
            "Use the tokenizer that belongs to the weights, or resize the embeddings and save the model again."
        )


def check_lengths(model: PreTrainedModel, splits: list[EncodedData]) -> None:
    """Refuse a row that is longer than a learned table of positions. Raises BadData."""
    limit = learned_positions(model)
    if limit is None:
        return
    for data in splits:
        lengths = _lengths(data)
        if int(lengths.max()) > limit:
            row = int(lengths.argmax())
            raise BadData(
                f"Line {int(data.lines[row])} has {int(lengths[row])} tokens, and the base model has positions for "
                f"{limit}. Set max_length to {limit} at most."
            )


def learned_positions(model: PreTrainedModel) -> int | None:
    """Size of a learned table of positions, in tokens; None for a model without one."""
    tables = [
        (module.num_embeddings - int(getattr(module, "offset", 0)))
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and is_position_table(name)
    ]
    return min(tables, default=None)


@torch.no_grad()
def packing_holds(model: PreTrainedModel, data: EncodedData) -> bool:
    """Whether the longest packable row has the same log-probabilities packed as alone.

    The probe at loading has few tokens: a window, a chunk or a scaling that begins after them shows here.
    """
    capabilities = capabilities_of(model)
    if not capabilities.is_packable:
        return True
    lengths = _lengths(data)
    if capabilities.longest_packable is not None:
        lengths = np.where(lengths <= capabilities.longest_packable, lengths, 0)
    row = int(lengths.argmax())
    if not lengths[row]:
        return True
    batch = _pack(data, row, model.device)
    packed = _read(model, batch)
    remember(model, replace(capabilities, is_packable=False))
    try:
        alone = _read(model, batch)
    finally:
        remember(model, capabilities)
    return _agree(packed, alone, compute_dtype(model)) if capabilities.reward_head is None else agree(packed, alone)


def _read(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Return what is compared: log-probabilities of tokens; of a reward model the states that its head reads."""
    capabilities = capabilities_of(model)
    if capabilities.reward_head is None:
        return token_logps(model, batch).values
    return run_whole(model, end_states, model, capabilities, batch)


def keep_cache_where_it_holds(model: PreTrainedModel, data: EncodedData) -> None:
    """Disable the generation cache where it gives other logits after the longest row."""
    capabilities = capabilities_of(model)
    row = data.row(int(_lengths(data).argmax()))
    longer = max(row.first, row.second, key=len)
    tokens = np.concatenate((row.prompt, longer))[-_CACHE_TOKENS:].astype(np.int64)
    if not capabilities.has_cache or len(tokens) < 2:
        return
    with stock_attention(model):
        holds = cache_holds(model, torch.from_numpy(tokens)[None].to(model.device))
    remember(model, replace(capabilities, has_cache=holds))


def _agree(packed: Tensor, alone: Tensor, dtype: torch.dtype) -> bool:
    difference = (packed - alone).abs()
    if dtype in _LARGEST_DIFFERENCE:
        return bool(difference.max() <= _LARGEST_DIFFERENCE[dtype])
    return bool(difference.mean() <= _COARSE_MEAN_DIFFERENCE)


def _pack(data: EncodedData, row: int, device: torch.device) -> PackedBatch:
    if data.kind == "preference":
        return pack_pairs(data, [row], device)
    return pack_responses(data, [row], device, side="chosen")


def _lengths(data: EncodedData) -> NDArray[np.int64]:
    """Tokens of the longest sequence of every row, [N]."""
    lengths: NDArray[np.int64] = data.prompt_lengths + np.maximum(data.first_lengths, data.second_lengths)
    return lengths


def keep_packing_where_it_holds(model: PreTrainedModel, data: EncodedData) -> None:
    """Run a model one sequence at a time when its longest row is not right when packed."""
    if packing_holds(model, data):
        return
    capabilities = replace(capabilities_of(model), is_packable=False)
    remember(model, capabilities)
    model.set_attn_implementation(capabilities.stock_attention)


def _tell(context: RunContext, model: PreTrainedModel) -> None:
    capabilities = capabilities_of(model)
    if not capabilities.is_packable:
        context.tell_once(
            "one_at_a_time",
            "Rows of this base model run one sequence at a time: packed together they would not get the values they "
            "have alone. Results are right; training is several times slower.",
            {"architecture": architecture_of(model)},
        )
    if not capabilities.has_cache and capabilities.reward_head is None:
        context.tell_once(
            "no_cache",
            "This base model generates without a cache here: samples take longer.",
            {"architecture": architecture_of(model)},
        )
    if num_experts(model) is not None:
        context.tell_once(
            "router_loss_left_out",
            "The base model is a mixture of experts. No loss for balancing its router is added: in preference tuning "
            "the router follows the loss alone.",
            {"num_experts": num_experts(model)},
        )
    if context.plan.lora is not None and context.plan.lora.target_modules == ALL_LINEAR:  # else it was asked for
        _tell_reach(context, model)


def _tell_beyond_context(context: RunContext, model: PreTrainedModel, splits: list[EncodedData]) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return
    num_rows = sum(int((_lengths(data) > limit).sum()) for data in splits)
    if num_rows:
        context.tell_once(
            "rows_beyond_context",
            f"{num_rows} rows are longer than the {limit} tokens that the base model was trained on: their ends lie "
            f"at positions it has never seen. Set max_length to {limit} to leave these rows out.",
            {"num_rows": num_rows, "context_length": limit},
            level="warning",
        )


def _tell_reach(context: RunContext, model: PreTrainedModel) -> None:
    found = coverage(model)
    if found.share >= FULL_REACH:
        return
    left_out = list(found.left_out[:_MOST_NAMES])
    advice = "Train without lora to tune these too."
    if has_expert_targets(model):
        advice = 'With "target_parameters": "all-experts" in lora the adapter reaches the experts too.'
    context.tell_once(
        "adapter_reach",
        f"The adapter reaches {found.share:.0%} of the base model's weights (embeddings and LM head not counted). "
        f"Left out, the largest first: {', '.join(left_out)}. {advice}",
        {"share": round(found.share, 4), "left_out": left_out},
        level="warning",
    )
