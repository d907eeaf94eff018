"""Division of attention over a packed row into blocks of queries, each with only the keys that any of them attends to.

Legend: T packed tokens, N query heads, K key/value heads, G = N / K, D head size, n queries and m keys of a block, R
and M the sums of K G n and K m over all blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

QUERY_ROWS = 128
"""A longer segment is cut into blocks of about so many queries."""
JOINED_TOKENS = 256
"""A prompt with its responses, up to this length, is one block: fewer, larger products beat skipping a square."""
KEPT_SCORES = 2**16
"""Up to this many scores a head, a block's probabilities are kept for the backward pass."""

MOST_KEPT_KEYS = KEPT_SCORES // QUERY_ROWS
"""Number of scores kept of a token and head, except of a short response after a long prompt."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Tokens [start, end) of the packed row, which also attend to the earlier tokens of their prefix."""

    start: int
    end: int
    prefix: tuple[tuple[int, int], ...] = ()
    """Ranges [start, end) of packed tokens, ascending: what comes before in the text."""

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def prefix_length(self) -> int:
        return sum(end - start for start, end in self.prefix)

    def places(self, keys: Tensor) -> Tensor:
        """Return where keys stand in the segment's text, prefix included, [m] int64; -1 where they do not belong."""
        found = torch.full_like(keys, -1)
        offset = 0
        for start, end in (*self.prefix, (self.start, self.end)):
            found = torch.where((keys >= start) & (keys < end), keys - start + offset, found)
            offset += end - start
        return found


class Block:
    """Queries [start, end) of one segment, or of a segment and those that share its beginning, with their keys."""

    def __init__(self, start: int, end: int, keys: Sequence[tuple[int, int]], segments: Sequence[Segment]) -> None:
        self.queries = slice(start, end)
        self.ranges = [slice(*bounds) for bounds in keys]
        self.num_queries = end - start
        self.num_keys = sum(stop - first for first, stop in keys)
        self.is_small = self.num_queries * self.num_keys <= KEPT_SCORES
        self._segments = segments
        self._bias: Tensor | None = None

    def keys(self, device: torch.device) -> Tensor:
        """Positions of the keys in the packed row, [m]."""
        return torch.cat([torch.arange(part.start, part.stop, device=device) for part in self.ranges])

    def bias(self, window: int | None, device: torch.device) -> Tensor:
        """Return the mask of the last c keys, [n, c] float32: 0 where a query attends to a key, else -inf.
        All queries attend to the keys before those.

        Formed once for all layers, unless it is large.
        """
        if self._bias is not None:
            return self._bias
        keys = self.keys(device)
        if window is None and len(self._segments) == 1:
            keys = keys[-self.num_queries :]
        bias = torch.full((self.num_queries, len(keys)), float("-inf"), device=device)
        for segment in self._segments:
            first, last = max(segment.start, self.queries.start), min(segment.end, self.queries.stop)
            places = segment.places(keys)
            queries = segment.prefix_length + torch.arange(first - segment.start, last - segment.start, device=device)
            visible = (places >= 0) & (places <= queries[:, None])
            if window is not None:
                visible &= queries[:, None] - places < window
            bias[first - self.queries.start : last - self.queries.start].masked_fill_(visible, 0.0)
        if bias.numel() <= KEPT_SCORES:
            self._bias = bias
        return bias


class BlockRows:
    """Gathers whole tensors into an order in which each block's rows are contiguous, and scatters them back.

    A block takes a dozen operations a layer. On its slices of a packed row, each of them would copy first, and these
    small copies cost a third of the time of attention.
    """

    def __init__(self, blocks: Sequence[Block], num_heads: int, num_groups: int, device: torch.device) -> None:
        heads = torch.arange(num_heads, device=device).view(num_groups, -1, 1)
        groups = torch.arange(num_groups, device=device)[:, None]
        queries, keys = [], []
        for block in blocks:
            tokens = torch.arange(block.queries.start, block.queries.stop, device=device)
            queries.append((tokens * num_heads + heads).flatten())
            keys.append((block.keys(device) * num_groups + groups).flatten())
        self._num_heads, self._num_groups = num_heads, num_groups
        self._query_counts, self._key_counts = [len(part) for part in queries], [len(part) for part in keys]
        self._queries, self._keys = torch.cat(queries), torch.cat(keys)
        self._places = torch.argsort(self._queries)
        """[T N] where each query's row is."""
        self._copies = torch.argsort(self._keys, stable=True)
        """[M] where the rows of each key are, key after key."""
        num_copies = torch.bincount(self._keys, minlength=len(self._queries) // num_heads * num_groups)
        self._first_copies = num_copies.cumsum(0) - num_copies

    def gather_queries(self, tensor: Tensor) -> Tensor:
        """Gather query rows: [T, N, D] to [R, D]."""
        return tensor.reshape(-1, tensor.shape[-1]).index_select(0, self._queries)

    def gather_keys(self, tensor: Tensor) -> Tensor:
        """Gather key rows: [T, K, D] to [M, D]; a key that several blocks use is repeated."""
        return tensor.reshape(-1, tensor.shape[-1]).index_select(0, self._keys)

    def split_queries(self, gathered: Tensor) -> list[Tensor]:
        """Split gathered queries into one view per block: [R, D] to [K, G n, D] each."""
        return [part.view(self._num_groups, -1, part.shape[-1]) for part in torch.split(gathered, self._query_counts)]

    def split_keys(self, gathered: Tensor) -> list[Tensor]:
        """Split gathered keys into one view per block: [M, D] to [K, m, D] each."""
        return [part.view(self._num_groups, -1, part.shape[-1]) for part in torch.split(gathered, self._key_counts)]

    def return_queries(self, gathered: Tensor) -> Tensor:
        """Scatter query rows back: [R, D] to [T, N, D]."""
        return gathered.index_select(0, self._places).view(-1, self._num_heads, gathered.shape[-1])

    def add_up_keys(self, gathered: Tensor) -> Tensor:
        """Sum key rows over their copies: [M, D] to [T, K, D]; only the sum is rounded."""
        sums = functional.embedding_bag(self._copies, gathered, self._first_copies, mode="sum")
        return sums.view(-1, self._num_groups, gathered.shape[-1])


class BlockPlan:
    """The blocks of a packed row under one sliding window, or none; every query is in one, in order."""

    def __init__(self, segments: Sequence[Segment], window: int | None = None) -> None:
        self.blocks: list[Block] = []
        self._rows: dict[tuple[int, int], BlockRows] = {}
        position = 0
        while position < len(segments):
            segment = segments[position]
            joined = [segment]
            while (following := position + len(joined)) < len(segments) and _is_joined(joined, segments[following]):
                joined.append(segments[following])
            if len(joined) > 1:
                span = (segment.start, joined[-1].end)
                self.blocks.append(Block(*span, [span], joined))
            else:
                self.blocks += _cut(segment, window)
            position += len(joined)

    def rows(self, num_heads: int, num_groups: int, device: torch.device) -> BlockRows:
        """Row order of the blocks, computed once for all layers."""
        heads = (num_heads, num_groups)
        if heads not in self._rows:
            self._rows[heads] = BlockRows(self.blocks, num_heads, num_groups, device)
        return self._rows[heads]


def _is_joined(joined: Sequence[Segment], following: Segment) -> bool:
    """Whether the next segment goes into one block with those before, which have no key outside their own span."""
    start = joined[0].start
    shares = not joined[0].prefix and bool(following.prefix) and following.prefix[0][0] >= start
    return shares and following.end - start <= JOINED_TOKENS


def _cut(segment: Segment, window: int | None) -> list[Block]:
    """Cut a segment into blocks of nearly equal size, without keys that the window hides from all their queries."""
    count = -(-segment.length // QUERY_ROWS)
    bounds = [segment.start + segment.length * i // count for i in range(count + 1)]
    blocks = []
    for start, end in pairwise(bounds):
        hidden = 0 if window is None else max(0, segment.prefix_length + start - segment.start - window + 1)
        keys = []
        for first, last in (*segment.prefix, (segment.start, end)):
            skipped = min(hidden, last - first)
            hidden -= skipped
            if first + skipped < last:
                keys.append((first + skipped, last))
        blocks.append(Block(start, end, keys, (segment,)))
    return blocks
