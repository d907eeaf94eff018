"""Flags of remarkable pairs, judged so that memorisation cannot hide them.

A model that trains on a pair learns its label, right or wrong: after a few epochs the margins of wrong pairs look like
those of right ones. So a label is judged only by what the policy thought of the pair *before* it trained on it: the
margin when the pair was first taken (in the first epoch, before the update it took part in), and for validation pairs,
which are never trained on, the last margin. Early in the epoch the policy knows little and all margins are near 0; so
a margin is compared with those of the pairs that were taken at about the same time: `mislabelled_score` is by how
many standard deviations it lies below their mean.

Legend: N pairs of a split.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LIKELY_MISLABELLED = "likely_mislabelled"
NEVER_LEARNED = "never_learned"
ALREADY_SATISFIED = "already_satisfied"
FORGOTTEN = "forgotten"
TRUNCATED = "truncated"

WINDOW = 200
"""Pairs that are compared with one another."""
MIN_SCORE = 1.2816
"""The lowest tenth, if margins were normal."""
SATISFIED_MARGIN = float(np.log(3.0))
"""A gradient weight of 0.25, half of that of a pair of which nothing is known."""


def mislabelled_scores(margins: Floats, order: NDArray[np.int64]) -> Floats:
    """Standard deviations below the mean of the neighbouring pairs, [N]; NaN where the margin is not known.

    Args:
        margins: [N] before the pair was trained on.
        order: [N] rows in the order in which they were taken.
    """
    scores = np.full(len(margins), np.nan)
    known = order[np.isfinite(margins[order])]
    for start in range(0, len(known), WINDOW):
        # The last window is as long as the others, so that few pairs are not judged by themselves.
        window = known[max(0, min(start, len(known) - WINDOW)) :][:WINDOW]
        judged = known[start : start + WINDOW]
        spread = margins[window].std()
        scores[judged] = (margins[window].mean() - margins[judged]) / spread if spread > 0 else 0.0
    return scores


def is_mislabelled(scores: Floats, margins: Floats) -> NDArray[np.bool_]:
    """Whether a pair is far below its neighbours and its own margin contradicts the label, [N]."""
    with np.errstate(invalid="ignore"):
        return (scores >= MIN_SCORE) & (margins < 0)
