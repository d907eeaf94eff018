"""Every upload that a refusal names is accepted, and has the meaning that the refusal says; no other one is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.datasets.advice.later_rows import LaterRows
from core.datasets.check.check import check_file
from core.datasets.layouts.registry import LAYOUTS_BY_NAME
from core.datasets.options import CheckOptions
from core.datasets.result import CheckResult
from core.datasets.sources.batches import LineBatch, Record, RecordBatch
from core.domain.dataset_rows import DatasetKind

from .conftest import Check, Checked, jsonl
from .test_codes import CASES as CODES
from .test_layouts import ASKED, BAD, CASES, GOOD

SHARED = Path(__file__).resolve().parents[4] / "shared"
OPTION = re.compile(r"\b(kind|format|columns|values|ignore|on_error|ties)=(\{.*?\}|\[.*?\]|\w[\w-]*)")
EXAMPLE = "send for example"
Side = tuple[str, str, str]


def said(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(message["content"] for message in value)


def sides(rows: list[dict[str, Any]]) -> list[Side]:
    """What is asked and answered, without how it is written down."""
    return [
        (
            said(row["prompt"]).strip(),
            said(row.get("chosen", row.get("response"))).strip(),
            said(row["rejected"]).strip() if "rejected" in row else str(row.get("label")),
        )
        for row in rows
    ]


def named_options(detail: str) -> list[tuple[str, Any]]:
    """Every option with a value in a refusal's text, but for what shows a form only."""
    sentences = [part for part in re.split(r"(?<=\.) (?=[A-Z])", detail) if EXAMPLE not in part]
    found = [match.groups() for part in sentences for match in OPTION.finditer(part)]
    return [(name, json.loads(value) if value[0] in "{[" else value) for name, value in found]


def follow(check: Check, content: Any, options: dict[str, Any], refused: Checked) -> list[Checked]:
    """What becomes of the file with each upload that its refusal names."""
    assert refused.result.refusal is not None
    advice = refused.result.refusal.advice
    told = named_options(refused.detail)
    assert told == [(name, value) for change in advice for name, value in change.items()], refused.detail
    found = [check(content, **{**options, **change}) for change in advice]
    assert all(checked.is_ready for checked in found), refused.detail
    return found


PAIRS = [(f"{ASKED} {number}", f"{GOOD} {number}", f"{BAD} {number}") for number in range(4)]


def rows_with(*names: str) -> list[dict[str, Any]]:
    return [dict(zip(names, pair, strict=True)) for pair in PAIRS]


def judged(names: tuple[str, ...], verdicts: tuple[Any, Any]) -> list[dict[str, Any]]:
    """Pairs of which every second one stands the other way round."""
    found = []
    for number, (asked, good, bad) in enumerate(PAIRS):
        answers = (bad, good) if number % 2 else (good, bad)
        found.append(dict(zip(names, (asked, *answers, verdicts[number % 2]), strict=True)))
    return found


def with_scores(chosen: float, rejected: float) -> list[dict[str, Any]]:
    pairs = rows_with("prompt", "chosen", "rejected")
    return [{**row, "score_chosen": chosen, "score_rejected": rejected} for row in pairs]


LETTERED = judged(("prompt", "answer_a", "answer_b", "chosen"), ("A", "B"))
SAID: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    (rows_with("Prompt", "Chosen", "Rejected"), {}, "wrong-column-names"),
    (rows_with("q", "good", "bad"), {}, "unknown-format"),
    (rows_with("question_text", "preferred_text", "dispreferred_text"), {}, "unknown-format"),
    (rows_with("brief", "chosen", "rejected"), {}, "no-prompt-column"),
    (rows_with("prompt", "completion", "rejected_completion"), {}, "wrong-kind"),
    (rows_with("prompt", "completion", "rejected_completion"), {"kind": "demonstration"}, "field-to-decide"),
    (judged(("ask", "x1", "x2", "v"), ("left", "right")), {}, "unknown-format"),
    (LETTERED, {}, "wrong-kind"),
    ([{**row, "rejected": "B" if row["chosen"] == "A" else "A"} for row in LETTERED], {}, "verdict-as-response"),
    (
        judged(("q", "a1", "a2", "verdict"), ("first", "second")),
        {"columns": {"prompt": "q", "chosen": "a1", "rejected": "a2"}},
        "field-to-decide",
    ),
    (
        judged(("q", "a1", "a2", "annotator"), ("first", "second")),
        {"columns": {"prompt": "q", "chosen": "a1", "rejected": "a2"}},
        "field-to-decide",
    ),
    (
        judged(("instruction", "response1", "response2", "annotator1"), (1, 2)),
        {"columns": {"prompt": "instruction", "chosen": "response1", "rejected": "response2"}},
        "field-to-decide",
    ),
    (judged(("prompt", "chosen", "rejected", "winner"), ("a", "b")), {}, "field-to-decide"),
    (judged(("prompt", "response_1", "response_2", "preference"), (0, 1)), {}, "verdict-unclear"),
    (with_scores(1, 2), {}, "rows-rejected"),
]


@pytest.mark.parametrize(("rows", "options", "code"), SAID)
def test_the_first_upload_named_has_the_right_meaning(check: Check, rows: Any, options: Any, code: str) -> None:
    refused = check(rows, **options)
    assert refused.result.refusal is not None
    assert refused.result.refusal.code == code
    assert sides(follow(check, rows, options, refused)[0].rows) == PAIRS


def test_malformed_rows_beside_a_wrong_kind_are_part_of_the_advice(check: Check) -> None:
    rows = [{"prompt": ASKED, "completion": GOOD, "label": True}] * 3 + [
        {"prompt": ASKED, "completion": 3, "label": True}
    ]
    refused = check(rows)
    assert refused.result.refusal is not None
    assert refused.result.refusal.advice == ({"kind": "unpaired", "on_error": "skip"},)
    assert follow(check, rows, {}, refused)[0].result.num_accepted == 3


@pytest.mark.parametrize(
    ("rows", "kind", "banned"),
    [
        ([{"prompt": ASKED, "completion": GOOD, "rejected_completion": BAD}], "preference", "demonstration"),
        ([{"messages": CASES["messages"][0]["messages"], "rejected_answer": BAD}], "preference", "demonstration"),
        ([{"prompt": ASKED, "completion": GOOD, "verdict": n} for n in ("good", "bad")], "preference", "demonstration"),
        (rows_with("brief", "chosen", "rejected"), "preference", "implicit"),
        (
            [{"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference": n} for n in "12x"],
            "preference",
            "skip",
        ),
        (
            [{"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference": n} for n in "123"],
            "preference",
            "skip",
        ),
        ([{"chosen": "A dog", "rejected": "Cats"}, {"chosen": "A red", "rejected": "A blue"}], "preference", "skip"),
        ([{"prompt": ASKED, "completion": GOOD, "label": n} for n in (0, 1, 1, 2)], "unpaired", "skip"),
    ],
)
def test_no_upload_that_changes_the_meaning_is_named(check: Check, rows: Any, kind: str, banned: str) -> None:
    refused = check(rows, kind=kind)
    assert not refused.is_ready
    assert not re.search(rf"\b{banned}\b", refused.detail)


def test_the_form_of_values_is_shown_with_what_is_in_the_file(check: Check) -> None:
    rows = judged(("prompt", "response_1", "response_2", "preference"), ("yes", "no"))
    refused = check(rows)
    assert 'values={"no": "first", "yes": "second"}' in refused.detail
    assert sides(check(rows, values={"yes": "first", "no": "second"}).rows) == PAIRS


@pytest.mark.parametrize("code", CODES)
def test_what_a_code_advises_is_accepted(check: Check, code: str) -> None:
    content, options = CODES[code]
    refused = check(content, **options)
    if refused.result.refusal is not None:
        follow(check, content, options, refused)


FAULTS = {
    "kind": lambda row: row,
    "one name": lambda row: {("my_" + name if place == 0 else name): row[name] for place, name in enumerate(row)},
    "capitals": lambda row: {name.capitalize(): value for name, value in row.items()},
    "verdict": lambda row: {**row, "winner": "model_a"},
    "label": lambda row: {**row, "label": 2},
    "scores": lambda row: {**row, "score_chosen": 1, "score_rejected": 2},
    "prompts": lambda row: {**row, "prompt": "Another?", "question": "One more?"},
    "rejected": lambda row: {**row, "rejected_answer": "No."},
    "broken": lambda row: dict.fromkeys(row, 5),
}


def spoilt(rows: list[dict[str, Any]], fault: str) -> list[dict[str, Any]]:
    """Every second row, where the fault is in some only; else all."""
    change = FAULTS[fault]
    if fault in ("broken", "verdict", "label"):
        other = {"verdict": "model_b", "label": 1}
        changed = [change(row) if place % 2 else row | ({"winner": other["verdict"]} if fault == "verdict" else {})
                   for place, row in enumerate(rows)]  # fmt: skip
        return changed
    return [change(row) for row in rows]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_advised_for_a_spoilt_file_of_each_layout_is_accepted(check: Check, fault: str) -> None:
    for name, (row, _) in CASES.items():
        for kind in DatasetKind if fault == "kind" else [LAYOUTS_BY_NAME[name].kind]:
            rows = spoilt([row, row, row], fault)
            refused = check(rows, kind=kind)
            if refused.result.refusal is not None:
                follow(check, rows, {"kind": kind}, refused)


def shared_files() -> list[Path]:
    patterns = ("data/broken/*", "cases/wild-*/*", "cases/files-*/*", "data/formats/*.json*", "data/formats/trl-zen/*")
    found = [path for pattern in patterns for path in SHARED.glob(pattern)] if SHARED.is_dir() else []
    return sorted(path for path in found if path.suffix not in (".md", ".py") and path.stat().st_size < 1 << 20)


@pytest.mark.parametrize("path", shared_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_advised_for_a_real_file_is_accepted(tmp_path: Path, path: Path) -> None:
    def read(number: int, **options: Any) -> CheckResult:
        (tmp_path / str(number)).mkdir()
        return check_file(path, CheckOptions(**options, filename=path.name), tmp_path / str(number))

    for first, kind in enumerate(DatasetKind):
        refusal = read(100 * first, kind=kind).refusal
        if refusal is None:
            continue
        told = named_options(refusal.detail)
        assert told == [(name, value) for change in refusal.advice for name, value in change.items()], refusal.detail
        for number, change in enumerate(refusal.advice, 100 * first + 1):
            options = {"kind": kind, **change}
            options["kind"] = DatasetKind(options["kind"])
            result = read(number, **options)
            assert result.refusal is None, (refusal.detail, result.refusal)


@pytest.mark.parametrize("fault", ["one name", "capitals", "rejected", "verdict"])
def test_a_fault_in_a_real_file_has_a_way_back_to_its_rows(tmp_path: Path, check: Check, fault: str) -> None:
    """Pairs of texts, whose columns are known: the first advice gives them back."""
    path = SHARED / "data" / "formats" / "ultrafeedback-explicit-clean.jsonl"
    if not path.exists():
        pytest.skip("the collection of data files is not here")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:20]]
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows]
    before = sides(check(rows).rows)
    changed = spoilt(rows, fault)
    refused = check(jsonl(changed))
    if refused.result.refusal is None:
        assert sides(refused.rows) == before
        return
    followed = follow(check, changed, {}, refused)
    assert any(sides(checked.rows) == before for checked in followed)


def test_an_upload_that_a_later_row_would_not_take_is_not_named(check: Check) -> None:
    """The first 200 rows do not show what stands in the middle of the file, or at its end."""
    rows = [{"q": ASKED, "good": f"{GOOD} {number}", "bad": f"{BAD} {number}"} for number in range(5_000)]
    told = check(rows).detail
    assert "columns=" in told
    assert told.endswith("(Tried on the first 200 rows.)")
    scored = [{"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]} for row in rows]
    scored = [row | {"winner": "ab"[place % 2]} for place, row in enumerate(scored)]
    whole = check(scored)
    assert whole.codes == {"field-to-decide": 1}
    assert "(Tried on the first 200 rows and on 2 spread over the file.)" in whole.detail
    assert all(checked.is_ready for checked in follow(check, scored, {}, whole))
    for places in (range(2_300, 2_700), range(4_999, 5_000)):
        broken = [row | {"chosen": 7} if place in places else row for place, row in enumerate(scored)]
        found = check(broken).result.refusal
        assert found is not None
        assert all(change.get("on_error") == "skip" for change in found.advice), found.advice
        assert found.advice


def test_later_rows_do_not_depend_on_how_far_ahead_batches_are_read() -> None:
    batches = [LineBatch(number, 1, b'{"n": %d}\n\n' % number) for number in range(100)]
    apart, ahead = LaterRows(), LaterRows()
    for _ in apart.watch(batches):
        apart.advance()
    for place, _ in enumerate(ahead.watch(batches)):
        if place >= 9:
            ahead.advance()
    for _ in range(9):
        ahead.advance()
    lines = [record.line for record in apart.records]
    assert [record.line for record in ahead.records] == lines
    assert lines == sorted(lines)
    assert (lines[0], lines[-1]) == (0, 99)
    assert len(lines) <= 34
    long = LaterRows()
    for _ in long.watch([LineBatch(1, 1, b"x" * 200_000), RecordBatch([Record(2, {"a": [{"b": "x" * 70_000}]})])]):
        long.advance()
    assert long.records == []
