"""Packed micro-batches: rows of a dataset laid out in one row of tokens without padding.

A step is a forest: texts that begin alike (system prompt, conversation so far, prompt, first words of responses) run
their common beginning once, and equal texts run once, however many rows name them. Log-probabilities are those of each
text alone, and gradients add up.

Legend: B rows, T packed tokens, S scored tokens, U different ones among them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.domain.errors import InvalidRequest
from core.training.data.encoded import EncodedData
from core.training.data.micro_batches import LANES, is_small, split_micro_batches, spread
from core.training.data.prefix_sharing import PrefixOrder
from core.training.data.texts import SIDES, Side, Text, texts_of
from core.training.kernels.attention_plan import Segment
from core.training.kernels.packed_attention import AttentionLayout
from core.training.kernels.varlen_attention import plan_varlen

PACKING_VERSION = 3
"""Raised whenever texts are laid out otherwise in micro-batches, which changes the last bits of their numbers."""


class NothingToScore(InvalidRequest):
    code = "nothing-to-score"
    title = "A response has no token to learn from"


@dataclass(frozen=True, kw_only=True)
class PackedResponse:
    """One response of a packed batch with what comes before it."""

    ranges: tuple[tuple[int, int], ...]
    """Packed positions [start, end) of its tokens, prompt included, in the order of the text."""
    num_predicted: int
    """Scored tokens that no response before it has: the next ones of `PackedBatch.targets`."""


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Rows of a dataset as one packed row of tokens.

    Responses are numbered: a batch of pairs has the B chosen responses first, then the B rejected ones. Scored tokens
    stand in the order of the responses, and within a response in the order of the text.
    """

    indices: tuple[int, ...]
    """[B] rows of the dataset, in the order of the results."""
    side: Side | None
    """The response of each row that is packed; None for pairs."""
    input_ids: Tensor
    """[1, T] int64"""
    position_ids: Tensor
    """[1, T] int64: place within the token's own prompt and response."""
    layout: AttentionLayout
    responses: tuple[PackedResponse, ...]
    """[responses]"""
    hidden_rows: Tensor
    """[U] int64: the packed position whose hidden state predicts a scored token (its predecessor)."""
    targets: Tensor
    """[U] int64: the scored tokens' ids. Responses that begin alike share the tokens of their common beginning."""
    scored_places: Tensor | None
    """[S] int64: which of the U each scored token is; None where all are different, and U = S."""
    padded_slots: Tensor
    """[S] int64: where a scored token stands in the flattened [responses, longest response] table."""
    num_scored_tokens: Tensor
    """[responses] int64: scored tokens of each, all at least 1."""
    lists: tuple[int, ...]
    """[B] of pairs: numbers, equal for pairs with the same prompt and chosen response, in all batches; else empty."""
    scored_counts: tuple[int, ...]
    """The same on the host."""
    longest: int
    """Tokens of the longest prompt with response."""
    ends: Tensor
    """[responses] int64: the packed position of each text's last token that is no padding token."""
    is_small: bool = False
    """Whether it may run beside others of its step."""

    @property
    def is_pairs(self) -> bool:
        return self.side is None

    @property
    def num_responses(self) -> int:
        return len(self.scored_counts)

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens that the model computes."""
        return self.layout.num_tokens

    @property
    def num_alone(self) -> int:
        """The number of tokens that a model computes which runs one text at a time."""
        return sum(end - start for text in self.responses if text.num_predicted for start, end in text.ranges)

    @property
    def num_scored(self) -> int:
        """S, the number of scored tokens, those that responses share counted for each."""
        return sum(self.scored_counts)


def pack_step(
    data: EncodedData,
    indices: Sequence[int],
    max_tokens: int,
    device: torch.device | str,
    num_ranks: int = 1,
    pad_token_id: int | None = None,
) -> list[PackedBatch]:
    """Pack the responses that are compared, cut into micro-batches.

    Pairs; of unpaired rows first their own responses, then those of their partners.

    Args:
        pad_token_id: the padding token of a reward model, over which `PackedBatch.ends` steps back.
    """
    if data.kind == "unpaired":
        return [batch for side in SIDES for batch in pack_side(data, indices, max_tokens, device, side, num_ranks)]
    return pack_side(data, indices, max_tokens, device, None, num_ranks, pad_token_id=pad_token_id)


def pack_side(
    data: EncodedData,
    indices: Sequence[int],
    max_tokens: int,
    device: torch.device | str,
    side: Side | None,
    num_ranks: int = 1,
    *,
    pad_token_id: int | None = None,
) -> list[PackedBatch]:
    """Pack one response of each row, or whole rows, cut into micro-batches: for a CPU alone, to run side by side."""
    lanes = LANES if num_ranks == 1 and torch.device(device).type == "cpu" else 1
    found = spread(split_micro_batches(data, indices, max_tokens, side=side, lanes=lanes), num_ranks)
    batches = [_pack(data, micro_batch, side, device, pad_token_id) for micro_batch in found]
    return [replace(batch, is_small=lanes > 1 and is_small(batch.num_tokens, max_tokens)) for batch in batches]


def pack_pairs(
    data: EncodedData, indices: Sequence[int], device: torch.device | str, pad_token_id: int | None = None
) -> PackedBatch:
    """Pack preference rows into one row.

    Raises:
        NothingToScore: a response without a scored token that has a predecessor.
    """
    return _pack(data, indices, None, device, pad_token_id)


def pack_responses(
    data: EncodedData, indices: Sequence[int], device: torch.device | str, side: Side = "only"
) -> PackedBatch:
    """Pack one response of each row with its prompt: for SFT, demonstrations and scoring.

    Raises:
        NothingToScore: a response without a scored token that has a predecessor.
    """
    return _pack(data, indices, side, device)


def _pack(
    data: EncodedData,
    indices: Sequence[int],
    side: Side | None,
    device: torch.device | str,
    pad_token_id: int | None = None,
) -> PackedBatch:
    rows = [_texts(data, index, side) for index in indices]
    width = len(rows[0])
    texts = [text for row in rows for text in row]
    paths, segments = _lay_out(texts)
    numbers = [number for first in range(width) for number in range(first, len(texts), width)]
    counts = tuple(len(texts[number].scored) for number in numbers)
    predictors = np.concatenate([paths[number][texts[number].scored - 1] for number in numbers])
    targets = np.concatenate([texts[number].tokens[texts[number].scored] for number in numbers])
    firsts, scored_places = _distinct(predictors, targets)
    bounds = np.searchsorted(firsts, np.cumsum((0, *counts)))
    row_tokens, positions = np.empty((2, segments[-1].end), np.int64)
    for text, path in zip(texts, paths, strict=True):
        row_tokens[path], positions[path] = text.tokens, np.arange(len(path))
    return PackedBatch(
        indices=tuple(int(i) for i in indices),
        side=side,
        input_ids=_to_device(row_tokens, device)[None],
        position_ids=_to_device(positions, device)[None],
        layout=_layout(segments, device),
        responses=tuple(
            PackedResponse(ranges=_ranges(paths[number]), num_predicted=int(after - before))
            for number, before, after in zip(numbers, bounds, bounds[1:], strict=False)
        ),
        hidden_rows=_to_device(predictors[firsts], device),
        targets=_to_device(targets[firsts], device),
        scored_places=None if len(firsts) == len(targets) else _to_device(scored_places, device),
        padded_slots=_to_device(_padded_slots(counts), device),
        num_scored_tokens=_to_device(np.asarray(counts), device),
        lists=tuple(_number(text.tokens) for text in texts[::2]) if side is None else (),
        scored_counts=counts,
        longest=max(len(text.tokens) for text in texts),
        ends=_to_device(np.asarray([paths[number][_end(texts[number], pad_token_id)] for number in numbers]), device),
    )


def _texts(data: EncodedData, index: int, side: Side | None) -> list[Text]:
    """Return the texts of a row that are packed. Raises NothingToScore."""
    row = texts_of(data, index, side)
    if not all(len(text.scored) for text in row):
        raise NothingToScore(
            f"Line {data.row(index).line}: a response has no token to learn from. Remove the line, or raise "
            "max_length as far as the base model's context goes."
        )
    return row


def _end(text: Text, pad_token_id: int | None) -> int:
    """Return the place of the last token that is no padding token, 0 where all are: as transformers finds it."""
    if pad_token_id is None:
        return len(text.tokens) - 1
    return int(np.flatnonzero(text.tokens != pad_token_id).max(initial=0))


def _lay_out(texts: Sequence[Text]) -> tuple[list[NDArray[np.int64]], list[Segment]]:
    """Return the packed positions of every text's tokens, and the segments of the packed row."""
    paths: list[NDArray[np.int64]] = []
    segments: list[Segment] = []
    end = 0
    for text, shared in zip(texts, PrefixOrder([text.tokens for text in texts]).shared(), strict=True):
        prefix = paths[shared.source][: shared.length] if shared is not None else np.empty(0, np.int64)
        start, end = end, end + len(text.tokens) - len(prefix)
        if end > start:
            segments.append(Segment(start=start, end=end, prefix=_ranges(prefix)))
        paths.append(np.concatenate((prefix, np.arange(start, end))))
    return paths, segments


def _ranges(positions: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Return ascending runs of positions as [start, end) each."""
    if not len(positions):
        return ()
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    firsts, lasts = positions[[0, *breaks]], positions[[*(breaks - 1), -1]]
    return tuple((int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True))


def _number(tokens: NDArray[np.int32]) -> int:
    """Return a number of 63 bits for a text, which no other text of a dataset will have."""
    return int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=8).digest(), "little") >> 1


def _padded_slots(counts: Sequence[int]) -> NDArray[np.int64]:
    """Return where values stand in a flattened table with a row for each count, [sum of counts]."""
    return np.concatenate([np.arange(count) + row * max(counts) for row, count in enumerate(counts)])


def _distinct(predictors: NDArray[np.int64], targets: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the different predictions first stand, ascending, [U], and which of them each one is, [S]."""
    _, firsts, inverse = np.unique(predictors << 32 | targets, return_index=True, return_inverse=True)
    ranks = np.empty(len(firsts), np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(firsts))
    return np.sort(firsts), ranks[inverse]


def _layout(segments: Sequence[Segment], device: torch.device | str) -> AttentionLayout:
    varlen = plan_varlen(segments, device) if torch.device(device).type == "cuda" else None
    return AttentionLayout(segments=tuple(segments), varlen=varlen)


def _to_device(values: NDArray[np.integer], device: torch.device | str) -> Tensor:
    """Copy to an int64 tensor on the device, from pinned memory on CUDA so that the host does not wait."""
    tensor = torch.from_numpy(values.astype(np.int64))
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
