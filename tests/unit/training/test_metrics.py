"""T17: figures are averages over all pairs of a step; accuracy is strict."""

import math

import numpy as np
import pytest
import torch

from core.domain.training import metric_names as names
from core.training.data.columns import Columns, to_host
from core.training.steps.figures import PairColumn, gradient_weights, pair_figures


def table(chosen: list[float], rejected: list[float], **columns: list[float]) -> np.ndarray:
    values = np.zeros((len(PairColumn), len(chosen)))
    values[PairColumn.CHOSEN_REWARD], values[PairColumn.REJECTED_REWARD] = chosen, rejected
    for name, column in columns.items():
        values[PairColumn[name]] = column
    return values


def test_uneven_micro_batches_weigh_by_their_pairs() -> None:
    """Losses 1, 1, 1 and 5: the mean of pairs is 2, the mean of the micro-batches' means would be 3."""
    losses = [[1.0, 1.0, 1.0], [5.0]]
    rows = [(4, 2, 7), (1,)]
    num_others = len(PairColumn) - 1
    parts = [
        Columns(row, torch.tensor([loss, *([[0.0] * len(loss)] * num_others)]))
        for row, loss in zip(rows, losses, strict=True)
    ]
    host = to_host(parts, [1, 2, 4, 7], torch.tensor(3.5))
    assert pair_figures(host.values)[names.LOSS] == 2.0
    assert host.values[PairColumn.LOSS].tolist() == [5.0, 1.0, 1.0, 1.0], "columns follow the order asked for"
    assert host.extra.tolist() == [3.5]


def test_ties_are_not_right() -> None:
    figures = pair_figures(table([0.0, 0.0, 1.0, -1.0], [0.0, 0.0, 0.5, 0.5]))
    assert figures[names.REWARD_ACCURACIES] == 0.25
    assert figures[names.REWARD_TIES] == 0.5


def test_margins_and_their_percentiles() -> None:
    chosen = [float(value) for value in range(11)]
    figures = pair_figures(table(chosen, [1.0] * 11))
    assert figures[names.REWARD_MARGINS] == 4.0
    percentiles = (names.REWARD_MARGINS_P10, names.REWARD_MARGINS_P50, names.REWARD_MARGINS_P90)
    assert [figures[name] for name in percentiles] == [0.0, 4.0, 8.0]
    assert (figures[names.CHOSEN_REWARDS], figures[names.REJECTED_REWARDS]) == (5.0, 1.0)


def test_gradient_weight_is_a_half_at_the_start_and_falls() -> None:
    assert pair_figures(table([0.0], [0.0]))[names.GRADIENT_WEIGHT] == 0.5
    assert gradient_weights(np.array([2.0]))[0] == pytest.approx(1 / (1 + math.exp(2.0)))
    assert gradient_weights(np.array([1e4, -1e4])).tolist() == [0.0, 1.0]


def test_chosen_that_fell_are_counted_against_the_reference() -> None:
    values = table([0.0] * 3, [0.0] * 3, CHOSEN_LOGP=[-5.0, -6.0, -7.0], CHOSEN_REFERENCE_LOGP=[-5.0, -5.0, -5.0])
    assert pair_figures(values)[names.CHOSEN_LOGPS_FELL] == pytest.approx(2 / 3)


def test_without_a_reference_nothing_fell() -> None:
    values = table([0.0], [0.0], CHOSEN_REFERENCE_LOGP=[math.nan])
    assert names.CHOSEN_LOGPS_FELL not in pair_figures(values)


def test_a_margin_that_is_length_correlates_with_it() -> None:
    table_of = lambda margins: table(margins, [0.0] * 3, LENGTH_DIFFERENCE=[1.0, -2.0, 4.0])  # noqa: E731
    assert pair_figures(table_of([0.5, -1.0, 2.0]))[names.LENGTH_CORRELATION] == pytest.approx(1.0)
    assert pair_figures(table_of([-0.5, 1.0, -2.0]))[names.LENGTH_CORRELATION] == pytest.approx(-1.0)
    expected = np.corrcoef([3.0, 1.0, 2.0], [1.0, -2.0, 4.0])[0, 1]
    assert pair_figures(table_of([3.0, 1.0, 2.0]))[names.LENGTH_CORRELATION] == pytest.approx(expected)
    for margins in ([1.0] * 3, [math.inf, 0.0, 0.0]):
        assert pair_figures(table_of(margins))[names.LENGTH_CORRELATION] is None


def test_what_is_not_finite_becomes_null() -> None:
    assert pair_figures(table([math.inf], [0.0]))[names.CHOSEN_REWARDS] is None


def test_every_figure_has_a_description() -> None:
    assert pair_figures(table([0.0], [0.0])).keys() <= names.METRICS.keys()
    assert names.METRICS.keys() >= names.TIMING
