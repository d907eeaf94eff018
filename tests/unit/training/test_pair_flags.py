"""Flags of pairs: judged before memorisation, within windows."""

import numpy as np
import pytest

from core.training.measures.pair_flags import MIN_SCORE, WINDOW, is_mislabelled, mislabelled_scores


def drifting_margins(rng: np.random.Generator, num_pairs: int, is_flipped: np.ndarray) -> np.ndarray:
    """As a policy that knows nothing at first and ever more: margins grow along the epoch, flipped ones downwards."""
    knowledge = np.linspace(0.02, 2.0, num_pairs)
    return knowledge * (np.where(is_flipped, -1.0, 1.0) + 0.7 * rng.standard_normal(num_pairs))


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    return float((scores[positive][:, None] > scores[~positive][None, :]).mean())


def test_scores_find_flips_all_along_the_epoch() -> None:
    rng = np.random.default_rng(0)
    flipped = rng.permutation(1000) < 100
    order = rng.permutation(1000)
    margins = np.empty(1000)
    margins[order] = drifting_margins(rng, 1000, flipped[order])
    scores = mislabelled_scores(margins, order)
    assert auroc(scores, flipped) > auroc(-margins, flipped) > 0.9
    early = order[:WINDOW]
    assert auroc(scores[early], flipped[early]) > 0.95  # though all margins are small there
    flagged = is_mislabelled(scores, margins)
    assert flagged[flipped].mean() > 0.7
    assert flipped[flagged].mean() > 0.7


def test_what_is_not_known_has_no_score_and_equal_margins_none_either() -> None:
    margins = np.array([np.nan, 0.5, 0.5, np.nan])
    scores = mislabelled_scores(margins, np.arange(4))
    assert np.isnan(scores[[0, 3]]).all()
    assert (scores[[1, 2]] == 0).all()
    assert not is_mislabelled(scores, margins).any()


@pytest.mark.parametrize("num_pairs", [1, 2, WINDOW - 1, WINDOW + 1, 2 * WINDOW + 7])
def test_every_pair_is_judged_among_a_whole_window(num_pairs: int) -> None:
    rng = np.random.default_rng(1)
    margins = rng.standard_normal(num_pairs)
    scores = mislabelled_scores(margins, np.arange(num_pairs))
    assert np.isfinite(scores).all()
    last = margins[max(0, num_pairs - WINDOW) :]
    expected = (last.mean() - margins[-1]) / last.std() if num_pairs > 1 else 0.0
    assert scores[-1] == pytest.approx(expected)


def test_a_flagged_pair_is_on_the_other_side_of_its_label() -> None:
    margins = np.concatenate([np.full(99, 2.0), [0.5]])  # the odd one is still judged as labelled
    scores = mislabelled_scores(margins, np.arange(100))
    assert scores[-1] > MIN_SCORE
    assert not is_mislabelled(scores, margins).any()
