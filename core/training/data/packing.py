"""Micro-batches: which rows run together, and how they are laid out in one packed row without padding.

Legend: B rows, T packed tokens, S scored tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.domain.errors import InvalidRequest
from core.training.data.encoded import EncodedData
from core.training.kernels.attention_plan import Segment
from core.training.kernels.packed_attention import AttentionLayout
from core.training.kernels.varlen_attention import plan_varlen

Side = Literal["chosen", "rejected", "only"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")


MIN_PROMPT_TOKENS = 4
"""A shorter prompt costs less to compute twice than to attend to as a prefix."""


class NothingToScore(InvalidRequest):
    code = "nothing-to-score"
    title = "A response has no token to learn from"


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
    response_segments: tuple[int, ...]
    """[responses] the segment of the layout that a response ends."""
    hidden_rows: Tensor
    """[S] int64: the packed position whose hidden state predicts the scored token (its predecessor)."""
    targets: Tensor
    """[S] int64: the scored tokens' ids."""
    padded_slots: Tensor
    """[S] int64: where a scored token stands in the flattened [responses, longest response] table."""
    num_scored_tokens: Tensor
    """[responses] int64: scored tokens of each, all at least 1."""
    scored_counts: tuple[int, ...]
    """The same on the host."""
    longest: int
    """Tokens of the longest prompt with response."""

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
    def num_scored(self) -> int:
        """S, the number of scored tokens."""
        return sum(self.scored_counts)


def split_micro_batches(
    data: EncodedData,
    indices: Sequence[int],
    max_tokens: int,
    *,
    side: Side | None = None,
) -> list[list[int]]:
    """Split rows into as few micro-batches of at most `max_tokens` packed tokens as first-fit-decreasing finds.

    A row over the budget gets a micro-batch of its own. The same arguments give the same plan; every index occurs
    as often as it was given; within a micro-batch the order is that of `indices`.

    Args:
        side: the response that is packed (SFT, scoring); None for whole rows.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    prompts, firsts, seconds = data.lengths_of(chosen)
    lengths = prompts + (0 if side == "rejected" else firsts) + (seconds if side in (None, "rejected") else 0)
    if side is None:
        lengths = lengths + np.where(_is_shared(prompts), 0, prompts)
    bins: list[list[int]] = []
    room: list[int] = []
    for position in np.argsort(-lengths, kind="stable"):
        length = int(lengths[position])
        place = next((i for i, left in enumerate(room) if left >= length), None)
        if place is None:
            bins.append([])
            room.append(max_tokens)
            place = len(bins) - 1
        bins[place].append(int(position))
        room[place] -= length
    return [[int(chosen[position]) for position in sorted(members)] for members in bins]


def spread(micro_batches: list[list[int]], num_ranks: int) -> list[list[int]]:
    """Split the largest micro-batches in half until the ranks can share them evenly, if there are rows enough."""
    found = list(micro_batches)
    while len(found) % num_ranks and (longest := max(found, key=len)) and len(longest) > 1:
        place = found.index(longest)
        found[place : place + 1] = [longest[: len(longest) // 2], longest[len(longest) // 2 :]]
    return found


def pack_step(
    data: EncodedData,
    indices: Sequence[int],
    max_tokens: int,
    device: torch.device | str,
    num_ranks: int = 1,
) -> list[PackedBatch]:
    """Pack the responses that the preference stage scores, cut into micro-batches.

    Pairs; of unpaired rows first their own responses, then those of their partners.
    """
    if data.kind == "unpaired":
        return [
            pack_responses(data, micro_batch, device, side=side)
            for side in SIDES
            for micro_batch in spread(split_micro_batches(data, indices, max_tokens, side=side), num_ranks)
        ]
    micro_batches = spread(split_micro_batches(data, indices, max_tokens), num_ranks)
    return [pack_pairs(data, micro_batch, device) for micro_batch in micro_batches]


def pack_pairs(data: EncodedData, indices: Sequence[int], device: torch.device | str) -> PackedBatch:
    """Pack preference rows into one row; where it saves tokens, a prompt is stored once for both responses.

    Raises:
        NothingToScore: a response without a scored token that has a predecessor.
    """
    packer = _Packer(data)
    prompts, _, _ = data.lengths_of(np.asarray(indices, dtype=np.int64))
    for index, is_shared in zip(indices, _is_shared(prompts), strict=True):
        row = data.row(index)
        start = packer.add(row.prompt, row.first)
        packer.score(0, index, row.first_scored, len(row.prompt))
        prompt_end = start + len(row.prompt)
        if is_shared:
            packer.add_shared((start, prompt_end), row.second)
        else:
            packer.add(row.prompt, row.second)
        packer.score(1, index, row.second_scored, len(row.prompt))
    return packer.finish(tuple(int(i) for i in indices), None, device)


def pack_responses(
    data: EncodedData, indices: Sequence[int], device: torch.device | str, side: Side = "only"
) -> PackedBatch:
    """Pack one response of each row with its prompt: for SFT, demonstrations and scoring.

    Raises:
        NothingToScore: a response without a scored token that has a predecessor.
    """
    packer = _Packer(data)
    for index in indices:
        row = data.row(index)
        response, scored = (row.second, row.second_scored) if side == "rejected" else (row.first, row.first_scored)
        packer.add(row.prompt, response)
        packer.score(0, index, scored, len(row.prompt))
    return packer.finish(tuple(int(i) for i in indices), side, device)


def _is_shared(prompts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether prompts of these lengths are stored once for both responses."""
    return prompts >= MIN_PROMPT_TOKENS


class _Packer:
    """Collects segments and scored tokens on the host; `finish` moves them to the device in one go."""

    def __init__(self, data: EncodedData) -> None:
        self._data = data
        self._tokens: list[NDArray[np.int32]] = []
        self._positions: list[NDArray[np.int64]] = []
        self._segments: list[Segment] = []
        self._length = 0
        self._scored: tuple[list[_Scored], list[_Scored]] = ([], [])

    def add(self, prompt: NDArray[np.int32], response: NDArray[np.int32]) -> int:
        """Append a whole sequence as a segment and return where it starts."""
        start = self._length
        self._push(np.concatenate((prompt, response)), 0)
        self._segments.append(Segment(start=start, end=self._length))
        return start

    def add_shared(self, prefix: tuple[int, int], response: NDArray[np.int32]) -> None:
        """Append a response that attends to a prompt packed before."""
        start = self._length
        self._push(response, prefix[1] - prefix[0])
        self._segments.append(Segment(start=start, end=self._length, prefix_start=prefix[0], prefix_end=prefix[1]))

    def score(self, side: int, index: int, scored: NDArray[np.uint8], prompt_length: int) -> None:
        """Mark the scored tokens of the segment added last, which ends with a response.

        The first token of a response after an empty prompt has no predecessor: no distribution predicts it, so it
        is not scored.
        """
        segment = self._segments[-1]
        response_start = segment.end - len(scored)
        offsets = np.flatnonzero(scored)
        if not prompt_length:
            offsets = offsets[offsets > 0]
        if not len(offsets):
            line = self._data.row(index).line
            raise NothingToScore(
                f"Line {line}: a response has no token to learn from. Remove the line, or raise max_length as far as "
                "the base model's context goes."
            )
        predictors = response_start + offsets - 1
        if segment.prefix_length:
            predictors[offsets == 0] = segment.prefix_end - 1
        targets = self._tokens[-1][len(self._tokens[-1]) - len(scored) :][offsets]
        self._scored[side].append(_Scored(predictors, targets, len(self._segments) - 1))

    def finish(self, indices: tuple[int, ...], side: Side | None, device: torch.device | str) -> PackedBatch:
        scored = [*self._scored[0], *self._scored[1]]
        counts = tuple(len(item.targets) for item in scored)
        return PackedBatch(
            indices=indices,
            side=side,
            input_ids=_to_device(self._tokens, device)[None],
            position_ids=_to_device(self._positions, device)[None],
            layout=_layout(self._segments, device),
            response_segments=tuple(item.segment for item in scored),
            hidden_rows=_to_device([item.predictors for item in scored], device),
            targets=_to_device([item.targets for item in scored], device),
            padded_slots=_to_device([np.arange(count) + i * max(counts) for i, count in enumerate(counts)], device),
            num_scored_tokens=_to_device([np.asarray(counts)], device),
            scored_counts=counts,
            longest=max(segment.prefix_length + segment.length for segment in self._segments),
        )

    def _push(self, tokens: NDArray[np.int32], first_position: int) -> None:
        self._tokens.append(tokens)
        self._positions.append(np.arange(first_position, first_position + len(tokens), dtype=np.int64))
        self._length += len(tokens)


@dataclass(frozen=True)
class _Scored:
    predictors: NDArray[np.int64]
    targets: NDArray[np.int32]
    segment: int


def _layout(segments: Sequence[Segment], device: torch.device | str) -> AttentionLayout:
    varlen = plan_varlen(segments, device) if torch.device(device).type == "cuda" else None
    return AttentionLayout(segments=tuple(segments), varlen=varlen)


def _to_device(parts: Sequence[NDArray[np.integer]], device: torch.device | str) -> Tensor:
    """Copy to an int64 tensor on the device, from pinned memory on CUDA so that the host does not wait."""
    tensor = torch.from_numpy(np.concatenate(parts).astype(np.int64))
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
