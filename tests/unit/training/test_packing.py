from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import Row, random_rows, write_rows

from core.training.data.encoded import EncodedData
from core.training.data.packing import (
    MIN_PROMPT_TOKENS,
    NothingToScore,
    Side,
    pack_pairs,
    pack_responses,
    split_micro_batches,
    spread,
)


def lengths_of(data: EncodedData, indices: list[int]) -> int:
    return int((data.prompt_lengths + data.first_lengths + data.second_lengths)[indices].sum())


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30), st.integers(1, 30)), max_size=40),
    max_tokens=st.integers(1, 120),
)
def test_a_plan_holds_every_row_once_within_the_budget(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[tuple[int, int, int]], max_tokens: int
) -> None:
    rows: list[Row] = [tuple([7] * length for length in row) for row in lengths]
    data = write_rows(tmp_path_factory.mktemp("rows"), rows)
    indices = list(range(len(rows)))[::-1]
    plan = split_micro_batches(data, indices, max_tokens)
    assert sorted(index for batch in plan for index in batch) == sorted(indices)
    assert all(batch for batch in plan)
    assert all(lengths_of(data, batch) <= max_tokens or len(batch) == 1 for batch in plan)
    assert all(batch == sorted(batch, reverse=True) for batch in plan), "the order within is that of the indices"
    assert plan == split_micro_batches(data, indices, max_tokens)


def test_a_plan_is_tight(tmp_path: Path) -> None:
    rows: list[Row] = [([1] * n, [2] * n, [3] * n) for n in (4, 20, 5, 19, 18, 6)]
    data = write_rows(tmp_path, rows)
    assert len(split_micro_batches(data, range(6), 72)) == 3


def test_the_same_row_twice_is_planned_twice(tmp_path: Path) -> None:
    data = write_rows(tmp_path, random_rows())
    plan = split_micro_batches(data, [3, 3, 1], 1000)
    assert sorted(index for batch in plan for index in batch) == [1, 3, 3]


def test_micro_batches_are_dealt_in_whole_turns_where_rows_suffice() -> None:
    assert spread([[1, 2, 3, 4]], 2) == [[1, 2], [3, 4]]
    assert spread([[1, 2, 3], [4], [5]], 2) == [[1], [2, 3], [4], [5]]
    assert spread([[1, 2], [3], [4]], 4) == [[1], [2], [3], [4]]
    assert spread([[1], [2], [3]], 2) == [[1], [2], [3]], "nothing is left to halve"
    assert spread([[1, 2], [3]], 1) == [[1, 2], [3]]
    assert spread([], 2) == []


@pytest.mark.parametrize(("side", "counted"), [("chosen", (0, 1)), ("rejected", (0, 2)), (None, (0, 1, 2))])
def test_the_budget_counts_what_is_packed(tmp_path: Path, side: Side | None, counted: tuple[int, ...]) -> None:
    rows = random_rows()
    data = write_rows(tmp_path, rows)
    total = sum(len(row[part]) for row in rows for part in counted)
    if side is None:  # a short prompt stands twice
        total += sum(len(row[0]) for row in rows if len(row[0]) < MIN_PROMPT_TOKENS)
    assert len(split_micro_batches(data, range(6), total, side=side)) == 1
    assert len(split_micro_batches(data, range(6), total - 1, side=side)) == 2


def test_a_shared_prompt_stands_once(tmp_path: Path) -> None:
    batch = pack_pairs(write_rows(tmp_path, [([5, 6, 7, 8], [9, 10], [11])]), [0], "cpu")
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 4]]
    first, second = batch.layout.segments
    assert (first.start, first.end, first.prefix_length) == (0, 6, 0)
    assert (second.start, second.end, second.prefix_start, second.prefix_end) == (6, 7, 0, 4)
    assert (batch.num_tokens, batch.num_scored, batch.num_responses, batch.longest) == (7, 3, 2, 6)


@pytest.mark.parametrize(("side", "part"), [("chosen", 1), ("rejected", 2), ("only", 1)])
def test_single_responses_follow_their_prompt(tmp_path: Path, side: Side, part: int) -> None:
    rows = random_rows()[:2]
    batch = pack_responses(write_rows(tmp_path, rows), [1, 0], "cpu", side)
    assert batch.input_ids[0].tolist() == [*rows[1][0], *rows[1][part], *rows[0][0], *rows[0][part]]
    assert batch.targets.tolist() == [*rows[1][part], *rows[0][part]]
    assert batch.indices == (1, 0)


def test_padded_slots_tell_responses_apart(tmp_path: Path) -> None:
    batch = pack_pairs(write_rows(tmp_path, random_rows()[:2]), [0, 1], "cpu")
    counts = (5, 4, 7, 2)
    assert batch.scored_counts == counts
    table = np.zeros(4 * 7, int)
    table[batch.padded_slots.numpy()] = 1
    assert table.reshape(4, 7).sum(1).tolist() == list(counts)


@pytest.mark.parametrize(
    ("row", "unscored"),
    [
        pytest.param(([5, 6], [7], [8]), {(0, 1, 0)}, id="nothing scored"),
        pytest.param(([], [7, 8], [8]), set(), id="one token after an empty prompt"),
    ],
)
def test_a_response_without_a_scored_token_is_refused(
    tmp_path: Path, row: Row, unscored: set[tuple[int, int, int]]
) -> None:
    data = write_rows(tmp_path, [random_rows()[0], row], {(1, side, offset) for _, side, offset in unscored})
    with pytest.raises(NothingToScore, match="Line 2"):
        pack_pairs(data, [0, 1], "cpu")
