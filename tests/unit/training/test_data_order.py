"""The order of rows: every one once an epoch, another order each epoch, and a cursor that needs no history."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import write_rows

from core.training.data.order import Cursor, DataOrder, epoch_permutation, partners, prompt_row_groups
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


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), batch_size=st.integers(1, 8), epochs=st.integers(1, 3)
)
def test_rows_of_a_group_stand_in_one_step(sizes: list[int], batch_size: int, epochs: int) -> None:
    rng = np.random.default_rng(len(sizes))
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = DataOrder(len(groups), batch_size, epochs, seed=3, stage=Stage.DPO, groups=groups)
    steps = steps_of(order)
    assert len(steps) == order.total_steps
    assert [order.cursor_of(step) for step in range(order.steps_in(0))] == [c for c, _ in steps if c.epoch == 0]
    for epoch in range(epochs):
        rows = [step for cursor, step in steps if cursor.epoch == epoch]
        assert sorted(row for step in rows for row in step) == list(range(len(groups)))
        assert all(1 <= len(step) <= batch_size for step in rows)
        for group, size in enumerate(sizes):
            within = [number for number, step in enumerate(rows) if any(groups[row] == group for row in step)]
            assert within == list(range(within[0], within[0] + -(-size // batch_size))), "one step, or consecutive ones"
    for place, (cursor, _) in enumerate(steps):
        again = DataOrder(len(groups), batch_size, epochs, seed=3, stage=Stage.DPO, groups=groups)
        assert steps_of(again, cursor) == steps[place:]


def test_groups_are_shuffled_anew_each_epoch() -> None:
    groups = np.repeat(np.arange(20), 3)
    order = DataOrder(60, 6, 2, seed=0, stage=Stage.DPO, groups=groups)
    first, second = ([rows for cursor, rows in steps_of(order) if cursor.epoch == epoch] for epoch in (0, 1))
    assert first != second
    assert first[0] != [0, 1, 2, 3, 4, 5]


def test_a_group_that_is_not_cut_is_a_step_of_its_own() -> None:
    groups = np.asarray([0] * 7 + [1, 1, 2])
    order = DataOrder(10, 3, 1, seed=0, stage=Stage.DPO, groups=groups, cuts_groups=False)
    steps = [sorted(rows) for _, rows in steps_of(order)]
    assert [0, 1, 2, 3, 4, 5, 6] in steps
    assert sum(map(len, steps)) == 10


def test_evaluated_rows_of_a_prompt_stand_together_wherever_they_are(tmp_path: Path) -> None:
    rows = [([5, 6, 7, prompt], [8], [9]) for prompt in (1, 2, 1, 3, 2, 1)]
    data = write_rows(tmp_path, rows)
    assert prompt_row_groups(data, 2, cuts_groups=True) == [[0, 2], [5], [1, 4], [3]]
    assert prompt_row_groups(data, 3, cuts_groups=True) == [[0, 2, 5], [1, 4, 3]]
    assert prompt_row_groups(data, 2, cuts_groups=False) == [[0, 2, 5], [1, 4], [3]]
