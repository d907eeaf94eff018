"""The real datasets library of Hugging Face: what it saves is read, and it opens exports with the types of the rows."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.datasets.exports.columns import MixedRows, find_types
from core.datasets.exports.files import folder_files, parquet_chunks
from core.datasets.options import Limits

from .conftest import Check, jsonl

datasets = pytest.importorskip("datasets", reason="the datasets library is not installed: pip install 'preftune[hub]'")

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"what": "fox", "n": [1, 2]}}}
TEXTS = [{"prompt": f"Number {n}?", "chosen": f"Yes, {n}.", "rejected": "No\nnever"} for n in range(150)]
CHATS = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Find {n}."}],
        "chosen": [{"role": "assistant", "content": "I look.", "tool_calls": [CALL]}],
        "rejected": [{"role": "assistant", "content": "No.", "reasoning_content": "Hm."}],
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}],
    }
    for n in range(5)
]


def saved(folder: Path, dataset: Any, **options: Any) -> Path:
    dataset.save_to_disk(folder, **options)
    return folder


def tarred(folder: Path, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, arcname=folder.name)
    return stream.getvalue()


def without_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "line"} for row in rows]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_saved_folder_is_read_in_the_order_of_its_shards(check: Check, tmp_path: Path, mode: str) -> None:
    folder = saved(tmp_path / "pairs", datasets.Dataset.from_list(TEXTS), num_shards=3)
    assert len(list(folder.glob("*.arrow"))) == 3
    checked = check(tarred(folder, mode))
    assert without_lines(checked.rows) == TEXTS
    assert [row["line"] for row in checked.rows] == list(range(1, 151))
    assert checked.result.report["statistics"]["container"] == "datasets"


def test_messages_and_json_columns_of_the_library_are_read(check: Check, tmp_path: Path) -> None:
    checked = check(tarred(saved(tmp_path / "chats", datasets.Dataset.from_list(CHATS))))
    assert checked.is_ready, checked.issues
    assert without_lines(checked.rows) == CHATS


def test_one_split_of_several_is_chosen(check: Check, tmp_path: Path) -> None:
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_list(TEXTS[:3]), test=datasets.Dataset.from_list(TEXTS[3:4])
    )
    content = tarred(saved(tmp_path / "both", splits))
    unsaid = check(content)
    assert (unsaid.codes, unsaid.detail) == (
        {"split-to-choose": 1},
        "The folder has the splits 'train', 'test'. Say which one to take: send split=train.",
    )
    assert without_lines(check(content, split="test").rows) == TEXTS[3:4]
    assert "it has 'train', 'test'" in check(content, split="dev").detail


def test_a_folder_with_one_split_needs_no_choice(check: Check, tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(TEXTS[:3]))
    assert without_lines(check(tarred(saved(tmp_path / "one", splits))).rows) == TEXTS[:3]


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("make", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_and_streams_are_read(check: Check, make: Any, compression: str | None) -> None:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(TEXTS)
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=40)
    checked = check(sink.getvalue(), filename="pairs.arrow")
    assert without_lines(checked.rows) == TEXTS
    assert checked.result.report["statistics"]["container"] == "arrow"


def arrow_stream(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    return sink.getvalue()


def test_a_stream_that_is_cut_is_damaged_wherever_it_is_cut(check: Check) -> None:
    whole = arrow_stream(TEXTS)
    step = len(whole) // 40
    for end in [len(whole) - 8, *range(step, len(whole) - 8, step)]:
        assert check(whole[:end]).codes == {"damaged-file": 1}, end


def test_offsets_that_point_elsewhere_are_damage(check: Check) -> None:
    """Without validation a value would be read from anywhere in the process."""
    whole = arrow_stream([{"prompt": "p", "chosen": "A" * 1234, "rejected": "no"}] * 2)
    end = (2468).to_bytes(4, "little")
    before, _, after = whole.rpartition(end)
    for wrong in (1 << 30, 0x80000000):
        assert check(before + wrong.to_bytes(4, "little") + after).codes == {"damaged-file": 1}


def test_unused_pictures_of_a_saved_folder_do_not_refuse_it(check: Check) -> None:
    rows = [{**row, "thumbnail": b"\x89PNG\xff"} for row in TEXTS[:4]]
    checked = check(arrow_stream(rows))
    assert without_lines(checked.rows) == TEXTS[:4]
    assert checked.result.report["statistics"]["ignored_fields"] == ["thumbnail"]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[Any, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def tar_of(*members: tuple[Any, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


STATE = json.dumps({"_data_files": [{"filename": "data.arrow"}]}).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tar_of(member("a/rows.jsonl", b"{}")), "not of a folder that `save_to_disk`"),
        (tar_of(member("../a/state.json", STATE)), "'../a/state.json', a path outside"),
        (tar_of(member("/a/state.json", STATE)), "'/a/state.json', a path outside"),
        (tar_of(member("a/state.json", STATE)), "lacks 'a/data.arrow'"),
        (
            tar_of(member("a/state.json", STATE), member("a/data.arrow", kind=tarfile.SYMTYPE, link="/etc/passwd")),
            "lacks 'a/data.arrow'",
        ),
        (tar_of(member("a/state.json", STATE.replace(b"data.arrow", b"../x"))), "not as `save_to_disk` writes it"),
        (tar_of(member("a/state.json", b"[]")), "not as `save_to_disk` writes it"),
        (tar_of(member("a/state.json", STATE), member("a/data.arrow", b"ARROW")), "damaged or cut short"),
        (tar_of(member("a/state.json", STATE), member("a/data.arrow", bytes(99)))[:1300], "lacks 'a/data.arrow'"),
    ],
)
def test_a_tar_that_is_no_saved_dataset_is_refused_with_the_reason(check: Check, content: bytes, words: str) -> None:
    checked = check(content)
    assert not checked.is_ready
    assert words in checked.detail


def test_a_compressed_tar_is_limited_as_any_file(check: Check, tmp_path: Path) -> None:
    rows = [{**TEXTS[0], "prompt": "a" * 400_000} for _ in range(6)]
    content = tarred(saved(tmp_path / "bomb", datasets.Dataset.from_list(rows)), "w:xz")
    assert check(content, limits=Limits(ratio_free_bytes=100_000)).codes == {"compression-ratio": 1}


# --- Exports


def lines(rows: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps({"line": n + 1, **row}, separators=(",", ":")).encode() + b"\n" for n, row in enumerate(rows)]


def exported(rows: list[dict[str, Any]], folder: Path, shard_bytes: int = 1000) -> Path:
    for file in folder_files(lines(rows), find_types(lines(rows)), "0123456789abcdef", shard_bytes):
        (folder / file.path).write_bytes(file.content)
    return folder


def test_texts_exported_open_with_the_types_of_the_rows(tmp_path: Path) -> None:
    loaded = datasets.load_from_disk(exported(TEXTS, tmp_path))
    assert len(list(tmp_path.glob("*.arrow"))) > 3, "in shards"
    text, number = datasets.Value("string"), datasets.Value("int64")
    assert loaded.features == {"line": number, "prompt": text, "chosen": text, "rejected": text}
    assert without_lines(loaded.to_list()) == TEXTS


def test_messages_exported_open_as_lists_of_structs(tmp_path: Path) -> None:
    loaded = datasets.load_from_disk(exported(CHATS, tmp_path))
    (reply,) = loaded[0]["chosen"]
    assert (reply["role"], reply["content"], reply["reasoning_content"]) == ("assistant", "I look.", None)
    called = reply["tool_calls"][0]["function"]
    assert (called["name"], json.loads(called["arguments"])) == ("find", {"what": "fox", "n": [1, 2]})
    assert json.loads(loaded[0]["tools"]) == CHATS[0]["tools"]


@pytest.mark.parametrize("rows", [TEXTS, CHATS], ids=["texts", "messages"])
def test_an_export_that_is_uploaded_gives_the_same_rows(
    check: Check, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    assert without_lines(check(tarred(exported(rows, folder))).rows) == rows
    parquet = b"".join(parquet_chunks(lines(rows), find_types(lines(rows)), 1000))
    assert without_lines(check(parquet).rows) == rows
    (tmp_path / "rows.parquet").write_bytes(parquet)
    opened = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), cache_dir=tmp_path / "cache")
    assert opened["train"].num_rows == len(rows)


def test_labels_and_documents_are_kept(tmp_path: Path) -> None:
    row = {"prompt": "q", "response": "a", "label": True, "documents": [{"title": "t", "text": "x"}]}
    loaded = datasets.load_from_disk(exported([row, {**row, "label": False, "documents": []}], tmp_path))
    assert loaded.features["label"] == datasets.Value("bool")
    assert (loaded[0]["label"], json.loads(loaded[0]["documents"])) == (True, row["documents"])


def test_texts_beside_messages_fit_no_column() -> None:
    with pytest.raises(MixedRows):
        find_types(lines([TEXTS[0], CHATS[0]]))


def test_what_is_advised_about_splits_is_accepted(check: Check, tmp_path: Path) -> None:
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_list(TEXTS[:3]), test=datasets.Dataset.from_list(TEXTS[3:4])
    )
    both = tarred(saved(tmp_path / "both", splits))
    named = re.search(r"send split=(\S+)\.$", check(both).detail)
    assert named is not None
    assert without_lines(check(both, split=named[1]).rows) == TEXTS[:3]
    unknown = check(both, split="dev").detail
    assert "leave it out" not in unknown
    for name in re.findall(r"'(\w+)'", unknown.partition("it has")[2]):
        assert check(both, split=name).is_ready
    one = tarred(saved(tmp_path / "one", datasets.DatasetDict(train=splits["train"])))
    assert "leave it out" in check(one, split="dev").detail
    for options in ({"split": "train"}, {}):
        assert without_lines(check(one, **options).rows) == TEXTS[:3]
    for content in (jsonl(TEXTS), arrow_stream(TEXTS)):
        assert check(content, split="train").detail.endswith("Leave it out.")
        assert without_lines(check(content).rows) == TEXTS
