"""Division of a step's rows into micro-batches by tokens, so that texts which begin alike run together."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from core.domain.training.sharing import LARGEST_WHOLE, MIN_SHARED_TOKENS
from core.training.data.encoded import EncodedData
from core.training.data.prefix_sharing import PrefixOrder
from core.training.data.texts import Side, Text, texts_of

LANES = 2
"""Micro-batches that run side by side on a CPU (`core.training.side_by_side`), together within the budget.

The same on every machine, since the division into micro-batches decides the last bits.
"""
LEAST_TOKENS = 256
"""Smaller micro-batches do not run side by side: their products have too few rows."""
MOST_REPEATED = 1.1
"""Micro-batches are halved to run side by side if they then take at most so many times the tokens.

What texts of several have in common runs in each of them.
"""
MOST_KEYS = 4
"""Keys of a micro-batch, counted for each text that attends to them, stay within so many times the budget.

A beginning that many texts share is computed once, but a CUDA kernel takes a copy of its keys for each of them.
"""


def split_micro_batches(
    data: EncodedData,
    indices: Sequence[int],
    max_tokens: int,
    *,
    side: Side | None = None,
    lanes: int = 1,
) -> list[list[int]]:
    """Split rows into few micro-batches of at most `max_tokens` packed tokens, by best fit in decreasing size.

    Rows of one prompt stay together up to `LARGEST_WHOLE` times the budget, and are cut between their responses
    beyond; a row over the budget gets a micro-batch of its own. The same arguments give the same plan; every index
    occurs as often as it was given; within a micro-batch the order is that of `indices`.

    Args:
        side: the response that is packed (SFT, scoring); None for whole rows.
        lanes: so many micro-batches run side by side. Where the rows allow it they are of equal size, as many as
            the lanes or a multiple, and so many of them are within the budget.
    """
    texts = [texts_of(data, index, side) for index in indices]
    order = PrefixOrder([text.tokens for row in texts for text in row])
    parts = _parts(texts, order, max_tokens)
    bins = _Bins(order, max_tokens)
    for part in parts:
        bins.add(part)
    if lanes > 1 and (halved := _side_by_side(order, parts, max_tokens, lanes)) is not None:
        bins = halved if halved.num_tokens <= MOST_REPEATED * bins.num_tokens else bins
    return [[int(indices[row]) for row in sorted(members)] for members in bins.members if members]


def is_small(num_tokens: int, max_tokens: int) -> bool:
    """Whether a micro-batch of so many tokens may run beside others."""
    return num_tokens * LANES <= max_tokens


class _Part:
    """Rows that stay in one micro-batch, and the numbers of their texts."""

    def __init__(self, rows: list[int], width: int) -> None:
        self.rows = rows
        self.numbers = [number for row in rows for number in range(row * width, row * width + width)]


def _parts(texts: Sequence[Sequence[Text]], order: PrefixOrder, max_tokens: int) -> list[_Part]:
    """Return the rows of each prompt together, in decreasing size; one by one where they are too many."""
    width = len(texts[0]) if texts else 1
    groups = [_Part(rows, width) for rows in _by_prompt(texts)]
    sizes = [order.added(group.numbers).tokens for group in groups]
    found: list[_Part] = []
    for place in np.argsort(-np.asarray(sizes), kind="stable"):
        rows = groups[place].rows
        whole = sizes[place] <= max_tokens * (LARGEST_WHOLE if _share_responses(texts, rows) else 1)
        found += [groups[place]] if whole else [_Part([row], width) for row in rows]
    return found


def _side_by_side(order: PrefixOrder, parts: Sequence[_Part], max_tokens: int, lanes: int) -> "_Bins | None":
    """Return micro-batches of nearly equal size that run side by side, after those that are too large for it.

    None where too little is left for each of them.
    """
    limit = max_tokens // lanes
    is_large = [order.added(part.numbers).tokens > limit for part in parts]
    small = [part for part, large in zip(parts, is_large, strict=True) if not large]
    total = order.added(number for part in small for number in part.numbers).tokens
    count = lanes * math.ceil(total / (lanes * limit)) if total else 0
    if not count or total < count * LEAST_TOKENS:
        return None
    bins = _Bins(order, max_tokens)
    for part, large in zip(parts, is_large, strict=True):
        if large:
            bins.add(part)
    bins.open(count, limit)
    for part in small:
        bins.add_to_emptiest(part)
    return bins


def _by_prompt(texts: Sequence[Sequence[Text]]) -> Iterable[list[int]]:
    """Group rows with the same prompt; a prompt too short to share is a group for each row."""
    groups: dict[object, list[int]] = {}
    for row, (text, *_) in enumerate(texts):
        prompt = text.tokens[: text.prompt_length]
        key = prompt.tobytes() if len(prompt) >= MIN_SHARED_TOKENS else row
        groups.setdefault(key, []).append(row)
    return groups.values()


def _share_responses(texts: Sequence[Sequence[Text]], rows: Sequence[int]) -> bool:
    """Whether some rows of one prompt have a response in common."""
    found = [text.tokens.tobytes() for row in rows for text in texts[row]]
    return len(set(found)) < len(found)


class _Bins:
    """Micro-batches under way, each with the rows in it and the places of its texts in the order of all."""

    def __init__(self, order: PrefixOrder, max_tokens: int) -> None:
        self._order, self._max_tokens = order, max_tokens
        self._first = 0
        """The micro-batches before are closed."""
        self.members: list[list[int]] = []
        self._tokens: list[int] = []
        self._keys: list[int] = []
        self._places: list[list[int]] = []

    @property
    def num_tokens(self) -> int:
        """Tokens of all micro-batches."""
        return sum(self._tokens)

    def open(self, count: int, max_tokens: int) -> None:
        """Close the micro-batches there are; open so many empty ones, of at most so many tokens."""
        self._first, self._max_tokens = len(self.members), max_tokens
        for _ in range(count):
            self._append()

    def add(self, part: _Part) -> None:
        """Add rows to the micro-batch where they add least tokens, the first of equals, or to a new one."""
        self._add(part, [0] * len(self.members))

    def add_to_emptiest(self, part: _Part) -> None:
        """Add rows to the open micro-batch that is smallest with them, the first of equals, or to a new one."""
        self._add(part, self._tokens)

    def _add(self, part: _Part, before: Sequence[int]) -> None:
        """Add rows where their tokens and those of `before` are least."""
        numbers = part.numbers
        own, is_alone = self._order.added(numbers), self._order.is_alone(numbers)
        best, place, least = own, len(self.members), math.inf
        for candidate in range(self._first, len(self.members)):
            cost = own if is_alone else self._order.added(numbers, self._places[candidate])
            fits = self._tokens[candidate] + cost.tokens <= self._max_tokens
            fits_keys = self._keys[candidate] + cost.keys <= MOST_KEYS * self._max_tokens
            if fits and fits_keys and before[candidate] + cost.tokens < least:
                best, place, least = cost, candidate, before[candidate] + cost.tokens
        if place == len(self.members):
            self._append()
        self.members[place] += part.rows
        self._tokens[place] += best.tokens
        self._keys[place] += best.keys
        if not is_alone:
            self._places[place] = sorted({*self._places[place], *self._order.places(numbers)})

    def _append(self) -> None:
        self.members.append([])
        self._tokens.append(0)
        self._keys.append(0)
        self._places.append([])


def spread(micro_batches: list[list[int]], num_ranks: int) -> list[list[int]]:
    """Split the largest micro-batches in half until the ranks can share them evenly, if there are rows enough."""
    found = list(micro_batches)
    while len(found) % num_ranks and (longest := max(found, key=len)) and len(longest) > 1:
        place = found.index(longest)
        found[place : place + 1] = [longest[: len(longest) // 2], longest[len(longest) // 2 :]]
    return found
