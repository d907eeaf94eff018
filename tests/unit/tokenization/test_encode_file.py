"""Whole files: the layout that the engine maps, the same on any number of processes, with nothing cut."""

import json
import random
from pathlib import Path

import pytest

from core.domain.dataset_rows import DatasetKind
from core.domain.training import encoded_format
from core.tokenization import encode_part
from core.tokenization.encode_file import EncodeSummary, encode_file
from core.tokenization.errors import (
    DamagedRows,
    EncodingStopped,
    NothingToEncode,
    UnusableChatTemplate,
    UnusableTokenizer,
)
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData

from .conftest import CHATML, LLAMA_2, LLAMA_3, byte_level, starting_with, write_folder

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "café", "日本", "12", "€"]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def preference_rows(count: int) -> list[dict]:
    source = random.Random(7)

    def text() -> str:
        return " ".join(source.choices(WORDS, k=source.randint(1, 12)))

    # Lines of the upload are not the rows' positions: some were refused.
    return [{"line": 2 * n + 3, "prompt": text(), "chosen": text(), "rejected": text()} for n in range(count)]


@pytest.fixture
def tokenizer(model_dirs: dict[str, Path]) -> PairTokenizer:
    return PairTokenizer.open(model_dirs["qwen"])


def encode(rows: Path, tokenizer: PairTokenizer, out: Path, **given: object) -> EncodeSummary:
    settings = {"kind": DatasetKind.PREFERENCE, "max_length": 512} | given
    return encode_file(rows, tokenizer, out, **settings)


def test_engine_reads_what_the_tokenizer_encodes(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    rows = preference_rows(40)
    summary = encode(write_rows(tmp_path / "rows.jsonl", rows), tokenizer, tmp_path / "out")
    data = EncodedData.open(tmp_path / "out")
    assert (len(data), data.num_tokens, data.digest) == (40, summary.num_tokens, summary.digest)
    for position, row in enumerate(rows):
        expected, found = tokenizer.encode_preference(row), data.row(position)
        assert found.line == row["line"]
        assert found.prompt.tolist() == expected.prompt_ids
        assert found.first.tolist() == expected.chosen_ids
        assert found.second.tolist() == expected.rejected_ids
        assert found.first_scored.tolist() == [int(flag) for flag in expected.chosen_scored]
        assert found.second_scored.tolist() == [int(flag) for flag in expected.rejected_scored]


@pytest.mark.parametrize("kind", [DatasetKind.DEMONSTRATION, DatasetKind.UNPAIRED])
def test_rows_of_one_response(tmp_path: Path, tokenizer: PairTokenizer, kind: DatasetKind) -> None:
    rows = [{"line": n, "prompt": "fox", "response": f"dog {n}", "label": n % 3 == 0} for n in range(1, 9)]
    encode(write_rows(tmp_path / "rows.jsonl", rows), tokenizer, tmp_path / "out", kind=kind)
    data = EncodedData.open(tmp_path / "out")
    assert data.kind == kind.value
    for position, row in enumerate(rows):
        found = data.row(position)
        assert found.first.tolist() == tokenizer.encode_demonstration(row).response_ids
        assert len(found.second) == 0
        assert found.label == int(row["label"])


@pytest.mark.parametrize("num_processes", [2, 3, 7])
def test_result_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, tokenizer: PairTokenizer, num_processes: int
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(300))
    alone = encode(rows, tokenizer, tmp_path / "alone", max_length=60, num_processes=1)
    shared = encode(rows, tokenizer, tmp_path / "shared", max_length=60, num_processes=num_processes)
    assert alone.num_set_aside > 0
    assert shared == alone
    for file in (tmp_path / "alone").iterdir():
        assert (tmp_path / "shared" / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in (tmp_path / "shared").iterdir()} == {
        encoded_format.META_FILE,
        encoded_format.TOKENS_FILE,
        encoded_format.SCORED_FILE,
        encoded_format.ROWS_FILE,
    }


def test_more_processes_than_rows(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(2))
    summary = encode(rows, tokenizer, tmp_path / "out", num_processes=4)
    assert summary.num_rows == 2
    assert EncodedData.open(tmp_path / "out").lines.tolist() == [3, 5]


def test_every_row_is_encoded_once_wherever_the_file_is_cut(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(6))
    size = rows.stat().st_size
    for cut in range(1, size):
        first = [row["line"] for row in encode_part._read_rows(rows, 0, cut, lambda done: None)]
        second = [row["line"] for row in encode_part._read_rows(rows, cut, size, lambda done: None)]
        assert first + second == [3, 5, 7, 9, 11, 13], cut


def test_rows_over_the_limit_are_set_aside_whole(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    rows = preference_rows(60)
    lengths = {
        row["line"]: len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
        for row in rows
        for pair in [tokenizer.encode_preference(row)]
    }
    limit = sorted(lengths.values())[30]
    summary = encode(write_rows(tmp_path / "rows.jsonl", rows), tokenizer, tmp_path / "out", max_length=limit)
    data = EncodedData.open(tmp_path / "out")
    assert data.lines.tolist() == [line for line, length in lengths.items() if length <= limit]
    expected = [(line, length) for line, length in lengths.items() if length > limit]
    assert [(row.line, row.num_tokens) for row in summary.set_aside] == expected
    assert summary.num_set_aside == len(expected)
    assert all(str(row.num_tokens) in row.detail for row in summary.set_aside)


def test_rows_that_the_template_refuses_are_set_aside_with_its_reason(tmp_path: Path) -> None:
    tokenizer = starting_with(byte_level(["<s>", "</s>"]), "<s>")
    folder = write_folder(tmp_path / "m", tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}, LLAMA_2)
    twice = [{"role": "user", "content": "fox"}] * 2
    answer = [{"role": "assistant", "content": "dog"}]
    other = [{"role": "assistant", "content": "fox"}]
    rows = [
        {"line": 1, "prompt": twice, "chosen": answer, "rejected": other},
        {"line": 2, "prompt": twice[:1], "chosen": answer, "rejected": other},
    ]
    opened = PairTokenizer.open(folder)
    summary = encode(write_rows(tmp_path / "rows.jsonl", rows), opened, tmp_path / "out")
    assert summary.num_rows == 1
    assert [(row.line, row.num_tokens) for row in summary.set_aside] == [(1, None)]
    assert "must alternate" in summary.set_aside[0].detail
    with pytest.raises(NothingToEncode, match=r"Line 1: .*must alternate"):
        encode(write_rows(tmp_path / "rows.jsonl", rows[:1]), opened, tmp_path / "none")


def test_pairs_that_are_equal_once_rendered_are_set_aside(tmp_path: Path) -> None:
    """The template trims what is said, so that leading line breaks are all that told the two sides apart."""
    control = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    opened = PairTokenizer.open(write_folder(tmp_path / "m", byte_level(control), named, LLAMA_3))
    rows = [
        {"line": 1, "prompt": "Say fox", "chosen": "fox", "rejected": "\n\nfox"},
        {"line": 2, "prompt": "Say fox", "chosen": "fox", "rejected": "dog"},
        {"line": 3, "prompt": "Say fox " * 90, "chosen": "fox", "rejected": "dog"},
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    summary = encode(file, opened, tmp_path / "out", max_length=64)
    assert summary.set_aside_counts == {"equal_once_rendered": 1, "too_long": 1}
    assert [(row.line, row.reason) for row in summary.set_aside] == [(1, "equal_once_rendered"), (3, "too_long")]
    assert encode(file, opened, tmp_path / "kept", max_length=64, keeps_equal=True).num_rows == 2
    parts = encode(file, opened, tmp_path / "parts", max_length=64, num_processes=2)
    assert parts == summary
    with pytest.raises(NothingToEncode, match=r"1 equal once rendered.* Line 1: chosen and rejected are the same"):
        encode(write_rows(tmp_path / "rows.jsonl", rows[:1]), opened, tmp_path / "none", max_length=64)


def test_set_aside_rows_are_listed_up_to_a_bound(
    tmp_path: Path, tokenizer: PairTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_part, "MAX_SET_ASIDE_KEPT", 5)
    rows = [*preference_rows(20), {"line": 99, "prompt": "a", "chosen": "b", "rejected": "c"}]
    limit = len(tokenizer.encode_prompt("a")) + 2
    summary = encode(write_rows(tmp_path / "rows.jsonl", rows), tokenizer, tmp_path / "out", max_length=limit)
    assert summary.num_rows + summary.num_set_aside == 21
    assert summary.num_set_aside > 5
    assert len(summary.set_aside) == 5


@pytest.mark.parametrize("num_processes", [1, 2])
def test_nothing_left(tmp_path: Path, tokenizer: PairTokenizer, num_processes: int) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(10))
    with pytest.raises(NothingToEncode, match="All 10 rows are longer than max_length"):
        encode(rows, tokenizer, tmp_path / "out", max_length=3, num_processes=num_processes)
    assert not (tmp_path / "out" / encoded_format.META_FILE).exists()
    with pytest.raises(NothingToEncode, match="no row"):
        encode(write_rows(tmp_path / "empty.jsonl", []), tokenizer, tmp_path / "empty")


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("damage", ['{"line": 9, "prompt": "a"}\n', "not json\n", "[]\n", '{"prompt": "a"}\n'])
def test_damaged_rows_are_told(tmp_path: Path, tokenizer: PairTokenizer, damage: str, num_processes: int) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(10))
    with rows.open("a") as file:
        file.write(damage)
    with pytest.raises(DamagedRows):
        encode(rows, tokenizer, tmp_path / "out", num_processes=num_processes)


def test_faults_of_the_base_model_come_back_from_the_processes(tmp_path: Path) -> None:
    control = ["<|im_start|>", "<|im_end|>"]
    folder = write_folder(tmp_path / "m", byte_level(control), {"eos_token": "<|im_end|>"}, CHATML)
    tokenizer = PairTokenizer.open(folder)
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(10))
    (folder / "chat_template.jinja").write_text("{% bad %}")
    with pytest.raises(UnusableChatTemplate):
        encode(rows, tokenizer, tmp_path / "out", num_processes=2)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UnusableTokenizer):
        encode(rows, tokenizer, tmp_path / "out2", num_processes=2)


def test_process_that_dies_is_noticed(
    tmp_path: Path, tokenizer: PairTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(10))
    with pytest.raises(EncodingStopped):
        encode(rows, tokenizer, tmp_path / "out", num_processes=2)


@pytest.mark.parametrize("num_processes", [1, 3])
def test_progress_counts_rows(tmp_path: Path, tokenizer: PairTokenizer, num_processes: int) -> None:
    seen: list[int] = []
    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(450))
    encode(rows, tokenizer, tmp_path / "out", num_processes=num_processes, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 450


@pytest.mark.parametrize("num_processes", [1, 2])
def test_progress_can_stop_the_work(tmp_path: Path, tokenizer: PairTokenizer, num_processes: int) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        raise Stop

    rows = write_rows(tmp_path / "rows.jsonl", preference_rows(450))
    with pytest.raises(Stop):
        encode(rows, tokenizer, tmp_path / "out", num_processes=num_processes, on_progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_digest_is_of_the_content(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    rows = preference_rows(5)
    digests = set()
    for number, changed in enumerate((rows, rows[:4], [*rows[:4], rows[4] | {"line": 99}], rows[::-1])):
        summary = encode(write_rows(tmp_path / "rows.jsonl", changed), tokenizer, tmp_path / str(number))
        digests.add(summary.digest)
    assert len(digests) == 4
    again = encode(write_rows(tmp_path / "rows.jsonl", rows), tokenizer, tmp_path / "again")
    assert again.digest in digests
