"""Probe of a loaded model: whether the engine's fast paths give the model's own results.

Two pairs that share their prompt are run packed and alone. A model whose packed hidden states differ, or whose code
does not call the attention interface in every layer, runs one sequence at a time. Logits are compared the same way:
where hidden state times LM head (with the scale and soft cap its configuration names) does not give the model's own
logits, these are used.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from core.training.kernels.attention_plan import Segment
from core.training.kernels.packed_attention import (
    PACKED_ATTENTION,
    AttentionLayout,
    LayoutNotDelivered,
    packed_attention,
)
from core.training.model.capabilities import (
    Capabilities,
    HeadTransform,
    attention,
    attention_of,
    remember,
    run_whole,
    stock_attention,
)
from core.training.model.rotary import trained_length

_PROBE_ATTENTION = "preftune_probe"
_PACKABLE_LAYERS = frozenset({"full_attention", "sliding_attention"})
FOREIGN_FAILURES = (
    LayoutNotDelivered,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    AssertionError,
)
"""What code of a model that cannot do what is asked of it may raise."""

_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
_COARSE_TOLERANCE = 0.1
"""Relative error of hidden states in 16 bits; another context changes them by more than that."""


def remember_least(model: PreTrainedModel, reward_head: str | None = None) -> Capabilities:
    """Record what every model is capable of, until `prepare` has found out more.

    Args:
        reward_head: name of a reward model's head; None for a language model.
    """
    least = Capabilities(
        is_packable=False,
        longest_packable=None,
        head=None,
        stock_attention=attention_of(model),
        has_cache=False,
        reward_head=reward_head,
    )
    remember(model, least)
    return least


@torch.no_grad()
def prepare(model: PreTrainedModel, reward_head: str | None = None) -> Capabilities:
    """Probe the model, record the result on it, and enable packed attention where it is exact.

    Args:
        reward_head: name of a reward model's head; None for a language model.
    """
    plain = remember_least(model, reward_head)
    sequences, packed = _probe_rows(model)
    head, has_cache, is_policy = None, False, reward_head is None
    if is_policy:
        with stock_attention(model):
            head = _find_head(model, sequences[0])
            has_cache = cache_holds(model, sequences[0])
    windows: list[int | None] = []
    found = replace(
        plain,
        is_packable=_is_packable(model, sequences, packed, windows),
        longest_packable=_longest_packable(model, windows),
        head=head,
        has_cache=has_cache,
    )
    if found.is_packable and head is None and is_policy and not _delivers_layout(model, packed):
        found = replace(found, is_packable=False)
    remember(model, found)
    if found.is_packable:
        model.set_attn_implementation(PACKED_ATTENTION)
    return found


@dataclass
class _PackedRow:
    input_ids: Tensor
    position_ids: Tensor
    layout: AttentionLayout
    rows: list[list[int]] = field(default_factory=list)
    """Packed places of each sequence's tokens."""


def _probe_rows(model: PreTrainedModel) -> tuple[list[Tensor], _PackedRow]:
    """Return two pairs over distinct tokens: as four sequences, and as one packed row."""
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocabulary, (48,), generator=generator).to(model.device)
    sequences, places, positions, segments = [], [], [], []
    for start, prompt, chosen, end in ((0, 7, 16, 23), (23, 32, 36, 48)):
        prompt_places = list(range(start, prompt))
        for first, last in ((prompt, chosen), (chosen, end)):
            places.append(prompt_places + list(range(first, last)))
            sequences.append(tokens[places[-1]][None])
        segments.append(Segment(start=start, end=chosen))
        segments.append(Segment(start=chosen, end=end, prefix=((start, prompt),)))
        positions += [*range(chosen - start), *range(prompt - start, prompt - start + end - chosen)]
    return sequences, _PackedRow(
        input_ids=tokens[None],
        position_ids=torch.tensor([positions], device=model.device),
        layout=AttentionLayout(segments=tuple(segments)),
        rows=places,
    )


def _is_packable(
    model: PreTrainedModel, sequences: list[Tensor], packed: _PackedRow, windows: list[int | None]
) -> bool:
    """Whether packed and separate rows agree; fills `windows` with the sliding window that every layer uses."""
    config = model.config.get_text_config()
    layer_types = getattr(config, "layer_types", None) or []
    if not set(layer_types) <= _PACKABLE_LAYERS or getattr(config, "attention_chunk_size", None):
        return False
    try:
        hidden = run_whole(model, _packed_hidden, model, packed, windows)
        with stock_attention(model):
            alone = [run_whole(model, last_hidden_states, model, ids) for ids in sequences]
    except FOREIGN_FAILURES:
        return False
    if len(windows) != config.num_hidden_layers:
        return False
    if "sliding_attention" in layer_types and not any(windows):
        return False
    return all(agree(hidden[places], expected) for places, expected in zip(packed.rows, alone, strict=True))


def _packed_hidden(model: PreTrainedModel, packed: _PackedRow, windows: list[int | None]) -> Tensor:
    """Hidden states of the packed row, [T, H]; records the sliding window that every layer uses."""

    def recording_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        windows.append(kwargs.get("sliding_window"))
        return packed_attention(*args, **kwargs)

    AttentionInterface.register(_PROBE_ATTENTION, recording_attention)
    resting = attention_of(model)
    model.set_attn_implementation(_PROBE_ATTENTION)
    try:
        output = model.base_model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            packed_layout=packed.layout,
            use_cache=False,
        )
    finally:
        model.set_attn_implementation(resting)
    hidden: Tensor = output.last_hidden_state
    return hidden[0]


def _delivers_layout(model: PreTrainedModel, packed: _PackedRow) -> bool:
    """Return whether the layout of a packed row reaches attention by way of the model's own logits."""
    try:
        with attention(model, PACKED_ATTENTION):
            model(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                packed_layout=packed.layout,
                use_cache=False,
            )
    except FOREIGN_FAILURES:
        return False
    return True


def _longest_packable(model: PreTrainedModel, windows: list[int | None]) -> int | None:
    """Return the least length at which the model computes something that a packed row does not get.

    Rotary scalings switch with the longest sequence of a forward pass; a window that the configuration names and no
    layer asks for is in the mask alone, which packed rows do without.
    """
    config = model.config.get_text_config()
    limits = [trained_length(config)]
    if not any(windows):
        limits.append(getattr(config, "sliding_window", None))
    return min((int(limit) for limit in limits if limit), default=None)


@torch.no_grad()
def cache_holds(model: PreTrainedModel, sequence: Tensor) -> bool:
    """Whether the cache gives the last token the same logits as a full forward pass."""
    try:
        expected = model(input_ids=sequence, use_cache=False).logits[0, -1:]
        kept = model(input_ids=sequence[:, :-1], use_cache=True)
        found = model(input_ids=sequence[:, -1:], past_key_values=kept.past_key_values, use_cache=True)
    except FOREIGN_FAILURES:
        return False
    return kept.past_key_values is not None and agree(found.logits[0], expected)


def _find_head(model: PreTrainedModel, input_ids: Tensor) -> HeadTransform | None:
    layer = model.get_output_embeddings()
    if not isinstance(getattr(layer, "weight", None), Tensor) or layer.weight.dim() != 2:
        return None
    config = model.config.get_text_config()
    divisor = getattr(config, "logits_scaling", None) or 1.0
    transform = HeadTransform(
        scale=float(getattr(config, "logit_scale", None) or 1.0) / float(divisor),
        softcap=getattr(config, "final_logit_softcapping", None),
    )
    try:
        expected = model(input_ids=input_ids, use_cache=False).logits[0]
        logits = run_whole(model, lambda: layer(last_hidden_states(model, input_ids)))
    except FOREIGN_FAILURES:
        return None
    logits = logits.float() * transform.scale
    if transform.softcap is not None:
        logits = torch.tanh(logits / transform.softcap) * transform.softcap
    if logits.shape != expected.shape or not agree(logits, expected):
        return None
    return transform


def agree(actual: Tensor, expected: Tensor) -> bool:
    """Whether every row of [T, H] agrees, relative to its own size."""
    error = (actual.float() - expected.float()).norm(dim=-1)
    limit = _TOLERANCES.get(expected.dtype, _COARSE_TOLERANCE) * expected.float().norm(dim=-1).clamp_min(1e-6)
    return bool((error <= limit).all())


def last_hidden_states(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return what the layers give for token ids [1, T], [T, H]."""
    hidden: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[0]
