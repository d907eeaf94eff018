"""The texts that rows are computed as: a prompt with one response each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.training.data.encoded import EncodedData

Side = Literal["chosen", "rejected", "only"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")


@dataclass(frozen=True)
class Text:
    """A prompt with one response to it."""

    tokens: NDArray[np.int32]
    prompt_length: int
    scored: NDArray[np.int64]
    """Places of the scored tokens."""


def texts_of(data: EncodedData, index: int, side: Side | None) -> list[Text]:
    """Return the texts of a row that are packed.

    The first token of a response after an empty prompt has no predecessor: no distribution predicts it, so it is not
    scored.
    """
    row = data.row(index)
    found = []
    if side != "rejected":
        found.append((row.first, row.first_scored))
    if side in (None, "rejected"):
        found.append((row.second, row.second_scored))
    texts = []
    for response, is_scored in found:
        scored = len(row.prompt) + np.flatnonzero(is_scored)
        texts.append(Text(np.concatenate((row.prompt, response)), len(row.prompt), scored[scored > 0]))
    return texts
