import json
from pathlib import Path

import numpy as np
import pytest
from packed_rows import random_rows, write_rows

from core.domain.training import encoded_format
from core.training.data.encoded import BrokenEncodedData, EncodedData


def test_rows_read_back_as_written(tmp_path: Path) -> None:
    rows = random_rows()
    data = write_rows(tmp_path, rows, unscored={(2, 1, 3)})
    assert len(data) == len(rows)
    assert data.lines.tolist() == [1, 2, 3, 4, 5, 6]
    assert data.prompt_lengths.tolist() == [len(row[0]) for row in rows]
    assert data.first_lengths.tolist() == [len(row[1]) for row in rows]
    assert data.second_lengths.tolist() == [len(row[2]) for row in rows]
    row = data.row(2)
    assert (row.prompt.tolist(), row.first.tolist(), row.second.tolist()) == tuple(map(list, rows[2]))
    assert row.second_scored.tolist() == [1, 1, 1, 0] + [1] * 9


def test_a_single_response_has_no_second(tmp_path: Path) -> None:
    data = write_rows(tmp_path, [([1, 2], [3])], kind="demonstration")
    assert (data.kind, data.second_lengths.tolist(), data.row(0).second.tolist()) == ("demonstration", [0], [])


def test_a_partners_response_is_seen_as_the_second(tmp_path: Path) -> None:
    rows = [([1, 2], [3, 4]), ([5], [6]), ([7], [8, 9, 10])]
    data = write_rows(tmp_path, rows, kind="unpaired", good={1}).with_partners(np.array([2, 0, 1]))
    assert [data.row(index).first.tolist() for index in range(3)] == [[3, 4], [6], [8, 9, 10]]
    assert [data.row(index).second.tolist() for index in range(3)] == [[8, 9, 10], [3, 4], [6]]
    assert data.second_lengths.tolist() == [3, 2, 1]
    assert data.row(0).second_scored.tolist() == [1, 1, 1]
    assert data.labels.tolist() == [0, 1, 0]


def test_selected_rows_keep_their_lines(tmp_path: Path) -> None:
    chosen = write_rows(tmp_path, random_rows()).select(np.array([4, 1]))
    assert chosen.lines.tolist() == [5, 2]
    assert chosen.row(1).prompt.tolist() == list(random_rows()[1][0])


def test_no_rows_at_all(tmp_path: Path) -> None:
    assert len(write_rows(tmp_path, [])) == 0


@pytest.mark.parametrize("index", [-1, 6])
def test_only_rows_that_exist(tmp_path: Path, index: int) -> None:
    with pytest.raises(IndexError):
        write_rows(tmp_path, random_rows()).row(index)


@pytest.mark.parametrize("name", ["meta.json", "tokens.i32", "scored.u8", "rows.i64"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path, random_rows())
    (tmp_path / name).unlink()
    with pytest.raises(BrokenEncodedData):
        EncodedData.open(tmp_path)


@pytest.mark.parametrize("name", ["tokens.i32", "scored.u8", "rows.i64"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path, random_rows())
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenEncodedData):
        EncodedData.open(tmp_path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, random_rows())
    path = tmp_path / encoded_format.META_FILE
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"version": encoded_format.VERSION + 1}))
    with pytest.raises(BrokenEncodedData, match="version"):
        EncodedData.open(tmp_path)
