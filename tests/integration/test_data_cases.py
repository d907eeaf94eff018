"""Files that were once misread, each with the reading that its case states: what is uploaded, and what comes of it.

The cases lie beside the repository; without them these tests are skipped. `tests/unit/datasets` has rows of its own for
each kind of fault.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
from tiny_models import write_tiny_tokenizer

from core.datasets.check.check import check_file
from core.datasets.options import CheckOptions
from core.datasets.result import ROWS_FILE, CheckResult
from core.domain.dataset_rows import DatasetKind, DemonstrationRow, PreferenceRow
from core.tokenization.pair_tokenizer import PairTokenizer
from core.tokenization.preview import preview_row

CASES_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES_FOLDER.is_dir(), reason="the collection of cases is not here")

Row = dict[str, Any]
KINDS_OF_CASES = ("wild-*", "files-*", "bug-message-fields-dropped", "bug-pairs-equal-once-rendered")
NOT_HERE = {"files-parquet-one-row-group"}
"""Made by a script, and large."""
EXTRA_SET_ASIDE = {"wild-mt-bench-turn/judgments.jsonl": 3}
"""Rows that the case's expected rows leave out."""


@dataclass(frozen=True, kw_only=True)
class Case:
    options: Row = field(default_factory=dict)
    expected: str | None = "expected.jsonl"
    """The file with the right rows; None where the case has none."""
    codes: dict[str, int] = field(default_factory=dict)
    """All that the report says."""
    refusal: str | None = None
    advised: Row | None = None
    """Options that the refusal names; with them the file has the rows expected."""


DEMONSTRATION = {"kind": "demonstration"}
TEXTS_DECODED = {"decoded-texts": 1}
CASES: dict[str, Case] = {
    "bug-message-fields-dropped/reasoning.jsonl": Case(expected=None),
    "bug-message-fields-dropped/tool-calls.jsonl": Case(expected=None),
    "bug-pairs-equal-once-rendered/pairs.jsonl": Case(expected=None, codes={"nearly-identical-pair": 8}),
    "files-backslashes-doubled/copied.jsonl": Case(expected=None, codes={"escapes-in-text": 1}),
    "files-backslashes-doubled/messages.tsv": Case(expected="expected-messages.jsonl", codes=TEXTS_DECODED),
    "files-backslashes-doubled/texts.tsv": Case(codes=TEXTS_DECODED),
    "files-csv-index-column/index.csv": Case(),
    "files-csv-index-column/messages.csv": Case(expected="expected-messages.jsonl"),
    "files-csv-index-column/sep-line.csv": Case(),
    "files-csv-json-cells/cut.csv": Case(expected=None, refusal="rows-rejected", codes={"invalid-cell": 1}),
    "files-csv-json-cells/indented.csv": Case(),
    "files-csv-json-cells/spaced.csv": Case(),
    "files-parquet-json-columns/content.parquet": Case(),
    "files-parquet-json-columns/item.parquet": Case(),
    "files-parquet-json-columns/texts.parquet": Case(expected="expected-texts.jsonl"),
    "files-parquet-json-columns/whole.parquet": Case(),
    "files-parquet-maps/pairs.parquet": Case(),
    **{
        f"files-parquet-nanoseconds/{name}.parquet": Case()
        for name in ("duration", "nanoseconds", "time", "timezone", "year-10000")
    },
    "wild-alpacafarm/pairs.json": Case(options={"columns": {"label": "preference"}}),
    "wild-columns-object/pairs.json": Case(
        expected=None, refusal="unsupported-format", codes={"unsupported-format": 1}
    ),
    "wild-context-is-text/pairs.jsonl": Case(codes={"meaningful-field-ignored": 1}),
    "wild-csv-python-repr/pairs.csv": Case(),
    "wild-dolly-context/rows.jsonl": Case(options=DEMONSTRATION, codes={"near-duplicate-row": 2}),
    "wild-function-call-role/rows.json": Case(expected=None),
    "wild-helpsteer2-turns/pairs.jsonl": Case(),
    "wild-images-column/pairs.json": Case(expected=None, refusal="rows-rejected", codes={"needs-media": 4}),
    "wild-instruction-and-prompt/pairs.jsonl": Case(codes={"meaningful-field-ignored": 1}),
    "wild-kto-tag/rows.json": Case(options={"kind": "unpaired"}),
    "wild-label-studio/tasks.json": Case(),
    "wild-messages-chosen-rejected/pairs.jsonl": Case(),
    "wild-ms-swift-rejected-response/pairs.jsonl": Case(),
    "wild-mt-bench-turn/judgments.jsonl": Case(codes={"nothing-to-compare": 3}),
    "wild-output-list/pairs.json": Case(),
    "wild-prompt-in-trajectory/pairs.jsonl": Case(),
    "wild-reasoning-content/pairs.jsonl": Case(expected=None),
    "wild-score-ties/pairs.jsonl": Case(
        expected=None, refusal="rows-rejected", codes={"score-tie": 2, "scores-disagree": 1}
    ),
    "wild-sharegpt-system-tools/pairs.json": Case(),
    "wild-single-newline-transcript/pairs.jsonl": Case(),
    "wild-skip-keeps-the-wrong-rows/pairs.jsonl": Case(
        refusal="no-prompt-column", codes={"no-prompt-column": 1}, advised={"columns": {"prompt": "brief"}}
    ),
    "wild-step-dpo-prefix/pairs.jsonl": Case(expected=None),
    "wild-system-column/pairs.jsonl": Case(),
    "wild-templated-prompt/pairs.jsonl": Case(),
    "wild-tool-call-beside-text/pairs.jsonl": Case(expected=None),
    "wild-tool-call-sft/rows.jsonl": Case(options=DEMONSTRATION, expected=None),
    "wild-two-responses-0-1/pairs.jsonl": Case(
        refusal="verdict-unclear",
        codes={"tie": 2, "verdict-unclear": 1},
        advised={"values": {"0": "first", "1": "second"}},
    ),
    "wild-verdict-0-1-2/pairs.jsonl": Case(
        options={"columns": {"response_1": "response 1", "response_2": "response 2", "preference": "label"}},
        refusal="verdict-unclear",
        codes={"tie": 2, "verdict-unclear": 1},
        advised={"values": {"0": "first", "1": "second", "2": "tie"}},
    ),
    "wild-verdict-floats/pairs.csv": Case(),
    "wild-weight-0/rows.jsonl": Case(options=DEMONSTRATION, expected=None),
}


def test_every_file_of_the_cases_has_its_reading() -> None:
    folders = {folder for pattern in KINDS_OF_CASES for folder in CASES_FOLDER.glob(pattern)}
    found = {
        f"{folder.name}/{file.name}"
        for folder in folders
        if folder.name not in NOT_HERE
        for file in folder.iterdir()
        if not file.name.startswith("expected") and file.suffix not in (".md", ".py")
    }
    assert found == CASES.keys()


def read(name: str, folder: Path, **options: Any) -> tuple[CheckResult, list[Row]]:
    path = CASES_FOLDER / name
    kind = DatasetKind(options.pop("kind", "preference"))
    result = check_file(path, CheckOptions(kind=kind, filename=path.name, **options), folder)
    rows = folder / ROWS_FILE
    return result, [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []


def texts(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(message["content"] for message in value)


def is_right(row: Row, expected: Row) -> bool:
    """Texts may have come as messages; a prompt that may be joined in several ways need only hold its parts."""
    for name, value in expected.items():
        if name == "prompt_must_contain":
            if not all(part in texts(row["prompt"]) for part in ([value] if isinstance(value, str) else value)):
                return False
        elif isinstance(value, str):
            if texts(row[name]).strip() != value.strip():
                return False
        elif name != "line" and row.get(name) != value:
            return False
    return True


def require_rows(result: CheckResult, rows: list[Row], case: Case, name: str) -> None:
    if case.expected is None:
        return
    path = (CASES_FOLDER / name).parent / case.expected
    expected = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [row for row in expected if "set_aside" not in row]
    assert (len(rows), result.num_set_aside) == (len(kept), len(expected) - len(kept) + EXTRA_SET_ASIDE.get(name, 0))
    wrong = [(row, wanted) for row, wanted in zip(rows, kept, strict=True) if not is_right(row, wanted)]
    assert not wrong


@pytest.mark.parametrize("name", CASES)
def test_a_case_has_the_reading_that_it_states(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    result, rows = read(name, tmp_path, **case.options)
    assert result.report["counts"] == case.codes
    assert (result.refusal.code if result.refusal else None) == case.refusal
    if result.refusal is None:
        return require_rows(result, rows, case, name)
    if case.advised is None:
        return None
    ((option, value),) = case.advised.items()
    assert f"{option}={json.dumps(value)}" in result.refusal.detail
    (tmp_path / "again").mkdir()
    result, rows = read(name, tmp_path / "again", **case.options, **case.advised)
    assert result.refusal is None
    return require_rows(result, rows, case, name)


def test_calls_reasoning_and_weights_are_in_the_rows(tmp_path: Path) -> None:
    def first(name: str, **options: Any) -> list[Row]:
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        return read(name, folder, **options)[1]

    calls = first("bug-message-fields-dropped/tool-calls.jsonl")
    assert any("tool_calls" in message for message in calls[0]["prompt"])
    assert calls[3]["chosen"][0]["tool_calls"] != calls[3]["rejected"][0]["tool_calls"]
    for name in ("bug-message-fields-dropped/reasoning.jsonl", "wild-reasoning-content/pairs.jsonl"):
        assert all(row["chosen"][-1]["reasoning_content"] for row in first(name))
    assert all(row["chosen"][-1]["tool_calls"] for row in first("wild-tool-call-beside-text/pairs.jsonl"))
    assert all(row["response"][0]["tool_calls"] for row in first("wild-tool-call-sft/rows.jsonl", kind="demonstration"))
    turns = [
        message
        for row in first("wild-weight-0/rows.jsonl", kind="demonstration")
        for message in row["response"]
        if message["role"] == "assistant"
    ]
    assert [turn.get("train", True) for turn in turns[:2]] == [False, True]
    steps = first("wild-step-dpo-prefix/pairs.jsonl")
    raw = [json.loads(line) for line in (CASES_FOLDER / "wild-step-dpo-prefix/pairs.jsonl").read_text().splitlines()]
    assert all(
        texts(row["chosen"]) == source["initial_reason_steps"] + source["chosen"]
        for row, source in zip(steps, raw, strict=True)
    )
    called = first("wild-function-call-role/rows.json")
    assert any("tool_calls" in message for row in called for message in row["prompt"])


TRIMMING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_pairs_that_a_template_makes_equal_are_told(tmp_path: Path) -> None:
    tokenizer = PairTokenizer.open(write_tiny_tokenizer(tmp_path / "trimming", TRIMMING))
    rows = read("bug-pairs-equal-once-rendered/pairs.jsonl", tmp_path)[1]
    assert all(preview_row(tokenizer, cast(PreferenceRow, row)).is_equal_pair for row in rows)


def test_turns_of_weight_0_are_not_scored(tmp_path: Path) -> None:
    tokenizer = PairTokenizer.open(write_tiny_tokenizer(tmp_path / "chatml"))
    row = read("wild-weight-0/rows.jsonl", tmp_path, kind="demonstration")[1][0]
    shown = preview_row(tokenizer, cast(DemonstrationRow, row)).responses["response"]
    scored = "".join(token for token, is_scored in zip(shown.tokens, shown.scored, strict=True) if is_scored)
    assert "Go" not in scored
    assert "minutes" in scored


def test_ties_by_score_are_dropped_on_demand(tmp_path: Path) -> None:
    ignored = ["score_chosen", "score_rejected"]
    (tmp_path / "all").mkdir()
    assert len(read("wild-score-ties/pairs.jsonl", tmp_path / "all", ignore=ignored)[1]) == 4
    result, rows = read("wild-score-ties/pairs.jsonl", tmp_path, ties="drop", on_error="skip")
    assert (len(rows), result.num_rejected, result.num_set_aside) == (1, 1, 2)


def test_one_row_group_is_read(tmp_path: Path) -> None:
    """As the case's script makes it, but of fewer rows."""
    script = CASES_FOLDER / "files-parquet-one-row-group" / "make.py"
    subprocess.run([sys.executable, str(script), "3000"], cwd=tmp_path, check=True, timeout=60)
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1
    output = tmp_path / "output"
    output.mkdir()
    assert check_file(tmp_path / "one.parquet", CheckOptions(), output).num_accepted == 3000
