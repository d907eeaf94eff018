"""The order of rows: every one once an epoch, another order each epoch, and a cursor that needs no history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.training.data.order import Cursor, DataOrder, epoch_permutation, partners
from core.training.observer import Stage


def steps_of(order: DataOrder, cursor: Cursor = Cursor()) -> list[tuple[Cursor, list[int]]]:  # noqa: B008 (frozen)
    found = []
    while cursor.epoch < order.epochs:
        found.append((cursor, order.rows_at(cursor)))
        cursor = order.after(cursor)
    return found


@given(num_rows=st.integers(1, 60), batch_size=st.integers(1, 25), epochs=st.integers(1, 3))
def test_every_row_once_an_epoch(num_rows: int, batch_size: int, epochs: int) -> None:
    order = DataOrder(num_rows, batch_size, epochs, seed=7, stage=Stage.DPO)
    steps = steps_of(order)
    assert len(steps) == order.total_steps
    for epoch in range(epochs):
        rows = [step for cursor, step in steps if cursor.epoch == epoch]
        assert sorted(row for step in rows for row in step) == list(range(num_rows))
        assert all(len(step) == batch_size for step in rows[:-1])


def test_orders_differ_by_seed_stage_and_epoch() -> None:
    choices = [(seed, stage, epoch) for seed in (0, 1) for stage in (Stage.SFT, Stage.DPO) for epoch in (0, 1)]
    orders = {tuple(epoch_permutation(50, *choice).tolist()) for choice in choices}
    assert len(orders) == len(choices)


def test_a_cursor_alone_tells_what_is_left() -> None:
    whole = steps_of(DataOrder(23, 4, 3, seed=1, stage=Stage.SFT))
    for place, (cursor, _) in enumerate(whole):
        assert steps_of(DataOrder(23, 4, 3, seed=1, stage=Stage.SFT), cursor) == whole[place:]


def test_the_order_is_pinned() -> None:
    """Resumed jobs must find the order they began with: a change here breaks every running job."""
    assert epoch_permutation(10, 0, Stage.DPO, 0).tolist() == PINNED


PINNED = [8, 6, 3, 5, 2, 7, 0, 9, 4, 1]


def test_epochs_done_counts_rows() -> None:
    order = DataOrder(10, 4, 2, seed=0, stage=Stage.DPO)
    cursors = [Cursor()]
    for _ in range(order.total_steps):
        cursors.append(order.after(cursors[-1]))
    assert [order.epochs_done(cursor) for cursor in cursors] == pytest.approx([0, 0.4, 0.8, 1, 1.4, 1.8, 2])


@given(num_rows=st.integers(2, 60), seed=st.integers(0, 3))
def test_partners_are_others_and_everyone_has_one(num_rows: int, seed: int) -> None:
    found = partners(num_rows, seed).tolist()
    assert sorted(found) == list(range(num_rows))
    assert all(other != row for row, other in enumerate(found))


def test_partners_come_from_the_seed() -> None:
    assert partners(40, 1).tolist() == partners(40, 1).tolist() != partners(40, 2).tolist()
    assert partners(1, 0).tolist() == [0]
