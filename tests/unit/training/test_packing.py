from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import Row, random_rows, write_rows

from core.domain.training.sharing import LARGEST_WHOLE, MIN_SHARED_TOKENS
from core.training.data.encoded import EncodedData
from core.training.data.micro_batches import MOST_KEYS, split_micro_batches, spread
from core.training.data.packing import NothingToScore, pack_pairs, pack_responses
from core.training.data.texts import Side


def lengths_of(data: EncodedData, indices: list[int]) -> int:
    return int((data.prompt_lengths + data.first_lengths + data.second_lengths)[indices].sum())


TEXT = st.lists(st.integers(5, 6), min_size=1, max_size=12)
PROMPT = st.sampled_from([[], [5, 5], [5, 6, 5, 6], [5, 6, 5, 6, 5, 5, 5], [6] * 9])


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(PROMPT, TEXT, TEXT), max_size=24), max_tokens=st.integers(1, 90))
def test_a_plan_holds_every_row_once_within_the_budget(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], max_tokens: int
) -> None:
    rows = [(prompt, [7, *chosen], [7, *rejected]) for prompt, chosen, rejected in rows]
    data = write_rows(tmp_path_factory.mktemp("rows"), rows)
    indices = list(range(len(rows)))[::-1]
    plan = split_micro_batches(data, indices, max_tokens)
    assert sorted(index for batch in plan for index in batch) == sorted(indices)
    assert all(batch for batch in plan)
    assert all(batch == sorted(batch, reverse=True) for batch in plan), "the order within is that of the indices"
    assert plan == split_micro_batches(data, indices, max_tokens)
    for batch in plan:
        is_one_prompt = len({tuple(rows[index][0]) for index in batch}) == 1
        limit = max_tokens * (LARGEST_WHOLE if is_one_prompt else 1)
        assert len(batch) == 1 or pack_pairs(data, batch, "cpu").num_tokens <= limit


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(PROMPT, TEXT, TEXT), min_size=1, max_size=16), side=st.sampled_from([None, "rejected"]))
def test_a_forest_holds_every_text_and_computes_each_beginning_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], side: Side | None
) -> None:
    rows = [(prompt, [7, *chosen], [7, *rejected]) for prompt, chosen, rejected in rows]
    data = write_rows(tmp_path_factory.mktemp("rows"), rows)
    indices = range(len(rows))
    batch = pack_pairs(data, indices, "cpu") if side is None else pack_responses(data, indices, "cpu", side)
    parts = (1, 2) if side is None else (2,)
    texts = [[*row[0], *row[part]] for part in parts for row in rows]
    ids, positions = batch.input_ids[0].numpy(), batch.position_ids[0].numpy()
    places = [np.concatenate([np.arange(*span) for span in response.ranges]) for response in batch.responses]
    assert [ids[path].tolist() for path in places] == texts
    assert all(positions[path].tolist() == list(range(len(path))) for path in places)

    for path in places:  # what its tokens attend to is the text before them
        for segment in batch.layout.segments:
            own = [place for place in path.tolist() if segment.start <= place < segment.end]
            if own:
                seen = [key for span in segment.prefix for key in range(*span)]
                assert path.tolist()[: len(seen) + len(own)] == seen + own

    beginnings = {tuple(text[:length]) for text in texts for length in range(MIN_SHARED_TOKENS, len(text) + 1)}
    if all(len(text) >= MIN_SHARED_TOKENS for text in texts):
        roots = {tuple(text[:MIN_SHARED_TOKENS]) for text in texts}
        assert batch.num_tokens == len(beginnings) + (MIN_SHARED_TOKENS - 1) * len(roots)


def ranked(prompt: list[int], answers: list[list[int]]) -> list[Row]:
    return [(prompt, better, worse) for better, worse in combinations(answers, 2)]


def test_ranked_answers_run_once_each(tmp_path: Path) -> None:
    answers = [[7, 10 + number, *[20 + number] * 6] for number in range(4)]
    rows = ranked([5, 6, 7, 8, 9], answers)
    batch = pack_pairs(write_rows(tmp_path, rows), range(6), "cpu")
    assert batch.num_tokens == 5 + 1 + 4 * 7
    assert batch.num_scored == 12 * 8
    assert len(batch.targets) == 1 + 4 * 7, "the first word of all answers is predicted once"


def test_a_ranked_list_over_the_budget_stays_whole_up_to_a_limit(tmp_path: Path) -> None:
    answers = [[10 + number] * 10 for number in range(4)]
    data = write_rows(tmp_path, ranked([5, 6, 7, 8], answers) + ranked([6, 6, 7, 8], answers))
    assert [len(part) for part in split_micro_batches(data, range(12), 44)] == [6, 6]
    assert [len(part) for part in split_micro_batches(data, range(12), 32)] == [6, 6]
    assert [len(part) for part in split_micro_batches(data, range(12), 88)] == [12]
    cut = split_micro_batches(data, range(12), 25)
    assert max(pack_pairs(data, part, "cpu").num_tokens for part in cut) <= 25


def test_keys_that_are_copied_for_each_text_are_bounded(tmp_path: Path) -> None:
    """2,000 tokens before every pair: all would fit the budget, and a CUDA kernel would copy 16 times as many keys."""
    system = list(range(10, 60)) * 40
    data = write_rows(tmp_path, [([*system, 5 + row], [row + 61] * 4, [row + 71] * 4) for row in range(16)])
    cut = split_micro_batches(data, range(16), 3000)
    assert pack_pairs(data, range(16), "cpu").num_tokens < 3000
    keys = [sum(s.prefix_length + s.length for s in pack_pairs(data, part, "cpu").layout.segments) for part in cut]
    assert max(keys) <= MOST_KEYS * 3000
    assert len(cut) == 8, "two pairs attend to 8,020 keys, three to 12,030"


def test_a_common_system_prompt_counts_once(tmp_path: Path) -> None:
    system = list(range(10, 60))
    data = write_rows(tmp_path, [([*system, 5 + row], [row + 61] * 10, [row + 71] * 10) for row in range(4)])
    assert pack_pairs(data, range(4), "cpu").num_tokens == 50 + 4 * 21
    assert [len(part) for part in split_micro_batches(data, range(4), 50 + 4 * 21)] == [4]
    assert [len(part) for part in split_micro_batches(data, range(4), 50 + 2 * 21)] == [2, 2]


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
        total += sum(len(row[0]) for row in rows if len(row[0]) < MIN_SHARED_TOKENS)
    assert len(split_micro_batches(data, range(6), total, side=side)) == 1
    assert len(split_micro_batches(data, range(6), total - 1, side=side)) == 2


def test_a_shared_prompt_stands_once(tmp_path: Path) -> None:
    batch = pack_pairs(write_rows(tmp_path, [([5, 6, 7, 8], [9, 10], [11])]), [0], "cpu")
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 4]]
    first, second = batch.layout.segments
    assert (first.start, first.end, first.prefix_length) == (0, 6, 0)
    assert (second.start, second.end, second.prefix) == (6, 7, ((0, 4),))
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
