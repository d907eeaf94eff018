"""A file with one column more, other names for others, or another order is read the same, or it is said: never silently
otherwise."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.check.check import check_file
from core.datasets.layouts.registry import LAYOUTS_BY_NAME
from core.datasets.options import CheckOptions
from core.datasets.result import ROWS_FILE
from core.domain.dataset_rows import DatasetKind

from .test_layouts import CASES

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "formats"
NUM_SHARED_ROWS = 12
COLUMNS: dict[str, list[Any]] = {
    "system": ["Be brief."],
    "history": [[["Hi", "Hello"]], [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]],
    "context": ["A text to rest on.", [{"role": "user", "content": "Earlier?"}]],
    "instruction": ["Answer in one sentence."],
    "question": ["Another question?"],
    "prompt": ["Another prompt?"],
    "preference": [1, "model_b", "tie"],
    "winner": ["model_a", "b"],
    "label": [0, True, "topic"],
    "score": [0.5],
    "weight": [0],
    "rejected_response": ["A worse one."],
    "tools": [[{"type": "function", "function": {"name": "look", "parameters": {}}}]],
}
DECOYS: dict[str, list[Any]] = {"id": [7, "x"], "source": ["web"], "created_at": ["2024-01-01"], "lang": ["en"]}
OPTIONAL = ("system", "input", "instruction", "history", "systemInstruction", "answer", "winner_tie")
SAYING = {
    "meaningful-field-ignored", "field-to-decide", "prompt-column-differs", "tools-ignored", "no-prompt-column",
    "verdict-unclear", "one-verdict-only", "scores-disagree", "score-tie",
}  # fmt: skip
MANY = settings(max_examples=150, deadline=None, derandomize=True)


def read(rows: list[dict[str, Any]], kind: DatasetKind) -> tuple[list[dict[str, Any]] | None, set[str]]:
    """The rows, None where the file is refused; and the codes."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "source", Path(folder) / "output"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        output.mkdir()
        result = check_file(source, CheckOptions(kind=kind), output)
        lines = (output / ROWS_FILE).read_text().splitlines() if result.refusal is None else None
        found = None if lines is None else [json.loads(line) for line in lines]
        return found, set(result.report["counts"])


def holds(changed: list[dict[str, Any]], before: list[dict[str, Any]], value: Any) -> bool:
    """The same pairs (whole ones, where their beginning was the prompt), and the new value in the prompt of each."""
    if len(changed) != len(before):
        return False
    words = ("Hello", "Earlier?", "look")
    needle = value if isinstance(value, str) else next(word for word in words if word in json.dumps(value))
    return all(
        needle[:12] in json.dumps(new) and all(map(str.endswith, _sides(new), _sides(old)))
        for new, old in zip(changed, before, strict=True)
    )


def _sides(row: dict[str, Any]) -> list[str]:
    sides = [row[name] for name in ("chosen", "rejected", "response") if name in row]
    return [side if isinstance(side, str) else side[-1]["content"] for side in sides]


def one_more(rows: list[dict[str, Any]], kind: DatasetKind, name: str, value: Any) -> None:
    before, codes = read(rows, kind)
    assert before is not None
    changed, told = read([{**row, name: value} for row in rows], kind)
    is_said = changed is None or bool((told - codes) & SAYING)
    assert is_said or changed == before or holds(changed or [], before, value), (name, value, told, changed)


def cases() -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(CASES))


@MANY
@given(cases(), st.sampled_from(sorted(COLUMNS)), st.data())
def test_one_meaningful_column_more_is_used_or_said(layout: str, name: str, data: st.DataObject) -> None:
    row = CASES[layout][0]
    if name not in row:
        one_more([row, row], LAYOUTS_BY_NAME[layout].kind, name, data.draw(st.sampled_from(COLUMNS[name])))


@MANY
@given(cases(), st.sampled_from(sorted(DECOYS)), st.data())
def test_decoys_and_the_order_of_columns_change_nothing(layout: str, name: str, data: st.DataObject) -> None:
    row, kind = CASES[layout][0], LAYOUTS_BY_NAME[layout].kind
    order = data.draw(st.permutations([*row, name] if name not in row else [*row]))
    decoyed = {name: data.draw(st.sampled_from(DECOYS[name])), **row}
    assert read([{key: decoyed[key] for key in order}], kind)[0] == read([row], kind)[0]


@MANY
@given(cases(), st.data())
def test_a_renamed_column_is_never_read_as_another(layout: str, data: st.DataObject) -> None:
    row, kind = CASES[layout][0], LAYOUTS_BY_NAME[layout].kind
    name = data.draw(st.sampled_from(sorted(row)))
    before, codes = read([row], kind)
    changed, told = read([{("x_" + key if key == name else key): value for key, value in row.items()}], kind)
    assert changed is None or changed == before or bool((told - codes) & SAYING) or _is_optional(layout, name)


def _is_optional(layout: str, name: str) -> bool:
    """Without it the row is whole in a layout of the same sides: a name that nobody knows says nothing."""
    if (layout, name) in (("doccano", "label"), ("step-dpo", "initial_reason_steps"), ("responses", "model")):
        return True
    return name in OPTIONAL or name.startswith(("annotator", "prediction", "score_"))


KEYS: dict[str, Any] = {"weight": 0, "train": False, "score": 4, "label": "bad", "reasoning_content": "Because.",
                        "loss_mask": 0, "name": "Ann", "attachments": ["a.pdf"]}  # fmt: skip


def message_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the messages of a row are."""
    if isinstance(value, dict) and ("role" in value or "from" in value):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in message_paths(item, (*path, key))]


@MANY
@given(cases(), st.sampled_from(sorted(KEYS)), st.data())
def test_one_meaningful_key_more_in_a_message_is_used_or_said(layout: str, key: str, data: st.DataObject) -> None:
    row, kind = json.loads(json.dumps(CASES[layout][0])), LAYOUTS_BY_NAME[layout].kind
    paths = message_paths(row)
    if not paths:
        return
    before, codes = read([row], kind)
    message = row
    for step in data.draw(st.sampled_from(paths)):
        message = message[step]
    if key in message or any(name.endswith(f".{key}") for name in LAYOUTS_BY_NAME[layout].message_keys):
        return
    message[key] = KEYS[key]
    changed, told = read([row], kind)
    is_context = key in ("weight", "train") and message.get("role", message.get("from")) in (
        "user",
        "human",
        "prompter",
    )
    assert changed != before or bool((told - codes) & SAYING) or is_context, (layout, key, told)


@pytest.mark.parametrize("layout", sorted(CASES))
def test_each_column_alone_renamed_or_added_in_each_layout(layout: str) -> None:
    """All of it, not a sample: every layout, every column."""
    row, kind = CASES[layout][0], LAYOUTS_BY_NAME[layout].kind
    for name, values in COLUMNS.items():
        if name not in row:
            one_more([row, row], kind, name, values[0])
    before, codes = read([row], kind)
    for name in row:
        changed, told = read([{("x_" + key if key == name else key): value for key, value in row.items()}], kind)
        assert changed in (None, before) or bool((told - codes) & SAYING) or _is_optional(layout, name), name


def shared_files() -> list[Path]:
    return sorted([*SHARED.glob("*.jsonl"), *SHARED.glob("trl-zen/*.jsonl")]) if SHARED.is_dir() else []


@pytest.mark.parametrize("path", shared_files(), ids=lambda path: path.name)
def test_real_files_with_one_column_more(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(NUM_SHARED_ROWS), strict=False)]
    for kind in DatasetKind:
        if read(rows, kind)[0] is None:
            continue
        for name, values in COLUMNS.items():
            if name not in rows[0]:
                one_more(rows, kind, name, values[0])
