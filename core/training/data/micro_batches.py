"""Division of a step's rows into micro-batches by tokens, so that texts which begin alike run together."""

from collections.abc import Iterable, Sequence

import numpy as np

from core.domain.training.sharing import LARGEST_WHOLE, MIN_SHARED_TOKENS
from core.training.data.encoded import EncodedData
from core.training.data.prefix_sharing import PrefixOrder
from core.training.data.texts import Side, Text, texts_of

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
) -> list[list[int]]:
    """Split rows into few micro-batches of at most `max_tokens` packed tokens, by best fit in decreasing size.

    Rows of one prompt stay together up to `LARGEST_WHOLE` times the budget, and are cut between their responses
    beyond; a row over the budget gets a micro-batch of its own. The same arguments give the same plan; every index
    occurs as often as it was given; within a micro-batch the order is that of `indices`.

    Args:
        side: the response that is packed (SFT, scoring); None for whole rows.
    """
    texts = [texts_of(data, index, side) for index in indices]
    width = len(texts[0]) if texts else 1
    order = PrefixOrder([text.tokens for row in texts for text in row])
    bins = _Bins(order, max_tokens)
    numbers = [list(range(row * width, row * width + width)) for row in range(len(texts))]
    groups = list(_by_prompt(texts))
    sizes = [order.added(number for row in rows for number in numbers[row]).tokens for rows in groups]
    for place in np.argsort(-np.asarray(sizes), kind="stable"):
        rows = groups[place]
        whole = sizes[place] <= max_tokens * (LARGEST_WHOLE if _share_responses(texts, rows) else 1)
        for part in [rows] if whole else [[row] for row in rows]:
            bins.add(part, [number for row in part for number in numbers[row]])
    return [[int(indices[row]) for row in sorted(members)] for members in bins.members]


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
        self.members: list[list[int]] = []
        self._tokens: list[int] = []
        self._keys: list[int] = []
        self._places: list[list[int]] = []

    def add(self, rows: list[int], numbers: list[int]) -> None:
        """Add rows to the micro-batch where they add least tokens, the first of equals, or to a new one."""
        own, is_alone = self._order.added(numbers), self._order.is_alone(numbers)
        best, place = own, len(self.members)
        for candidate, places in enumerate(self._places):
            cost = own if is_alone else self._order.added(numbers, places)
            fits = self._tokens[candidate] + cost.tokens <= self._max_tokens
            fits_keys = self._keys[candidate] + cost.keys <= MOST_KEYS * self._max_tokens
            if fits and fits_keys and (place == len(self.members) or cost.tokens < best.tokens):
                best, place = cost, candidate
        if place == len(self.members):
            self.members.append([])
            self._tokens.append(0)
            self._keys.append(0)
            self._places.append([])
        self.members[place] += rows
        self._tokens[place] += best.tokens
        self._keys[place] += best.keys
        if not is_alone:
            self._places[place] = sorted({*self._places[place], *self._order.places(numbers)})


def spread(micro_batches: list[list[int]], num_ranks: int) -> list[list[int]]:
    """Split the largest micro-batches in half until the ranks can share them evenly, if there are rows enough."""
    found = list(micro_batches)
    while len(found) % num_ranks and (longest := max(found, key=len)) and len(longest) > 1:
        place = found.index(longest)
        found[place : place + 1] = [longest[: len(longest) // 2], longest[len(longest) // 2 :]]
    return found
