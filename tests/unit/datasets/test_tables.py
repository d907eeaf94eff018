"""Tables as programs write them: unnamed columns, lines before the header, backslashes, workbooks."""

import csv
import io
import json
import zipfile
from typing import Any

import pytest

from core.datasets.options import MIB
from core.datasets.sources.escapes import take_census, unescape

from .conftest import Check, jsonl

FIELDS = ("prompt", "chosen", "rejected")
TEXTS = [
    ("Name a fruit.", "Apple.", "I don't know."),
    ('Write two lines, "quoted".', "One, \"first\"\nTwo, 'second'", "C:\\new\\table\tend"),
    ("How many?", "12", "007"),
    ("Is it missing?", "null", '"true"'),
    ('"Begins', "in LaTeX: \\frac{\\theta}{2} \\\\ next", "a\\"),
]
PLAIN = [dict(zip(FIELDS, texts, strict=True)) for texts in TEXTS]


def normalised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "line"} for row in rows]


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue().encode()


def copied(rows: list[tuple[str, ...]]) -> bytes:
    """The text format of PostgreSQL's COPY."""
    escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})
    lines = ("\t".join(cell.translate(escapes) for cell in row) for row in [FIELDS, *rows])
    return "".join(line + "\n" for line in lines).encode()


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0", "Index (from: 0)"])
def test_the_row_numbers_of_pandas_are_ignored(check: Check, name: str) -> None:
    rows = [(str(number), *texts) for number, texts in enumerate(TEXTS)]
    checked = check(table((name, *FIELDS), rows))
    assert normalised(checked.rows) == PLAIN
    assert checked.result.report["statistics"]["ignored_fields"] == [name.strip() or "(column 1, without a name)"]


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"'])
def test_the_line_that_names_the_separator_is_no_row(check: Check, line: str) -> None:
    checked = check(f"{line}\r\n".encode() + table(FIELDS, TEXTS, ";"))
    assert normalised(checked.rows) == PLAIN
    assert checked.rows[0]["line"] == 3


def test_the_escapes_of_copy_are_read_and_that_is_said(check: Check) -> None:
    checked = check(copied(TEXTS[:3]))
    assert normalised(checked.rows) == PLAIN[:3]
    assert checked.codes == {"decoded-texts": 1}


def test_messages_in_the_text_format_of_copy(check: Check) -> None:
    rows = [
        tuple(json.dumps([{"role": role, "content": text}]) for role, text in
              zip(("user", "assistant", "assistant"), texts, strict=True))
        for texts in TEXTS
    ]  # fmt: skip
    checked = check(copied(rows))
    assert [row["chosen"][0]["content"] for row in checked.rows] == [texts[1] for texts in TEXTS]


def test_a_null_of_copy_is_null(check: Check) -> None:
    content = copied(TEXTS[:3]) + b"A question\\\\?\t\\N\tno\n"
    assert "null-field" in check(content, on_error="skip").codes


AMBIGUOUS = {
    "latex": rb"\nabla \\ and \frac{\theta}{2}",
    "nothing doubled": rb"One\nTwo",
    "a lone backslash": rb"\\ and \d+",
    "a quoted cell": rb"x" + b'\t"a \\\\ b"\t',
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_backslashes_that_may_be_meant_stay(name: str) -> None:
    assert not take_census([b"prompt\tchosen\trejected\n", AMBIGUOUS[name], b"\n"]).is_escaped


def test_the_census_does_not_depend_on_how_the_bytes_arrive() -> None:
    content = copied(TEXTS[:3]) * 50
    whole = take_census([content])
    assert whole.is_escaped
    for size in (1, 7, 1000):
        assert take_census(content[begin : begin + size] for begin in range(0, len(content), size)) == whole
    assert not take_census([b"x" * MIB] * 17).is_escaped


def test_unescaping() -> None:
    assert [unescape(cell) for cell in ("plain", r"a\tb\\n", r"\N", r"\\N")] == ["plain", "a\tb\\n", None, "\\N"]


def test_escapes_that_stay_are_told(check: Check) -> None:
    rows = [{"prompt": f"q {number}", "chosen": r"One\nTwo", "rejected": "Three"} for number in range(3)]
    for content in (jsonl(rows), table(FIELDS, [tuple(row.values()) for row in rows], "\t")):
        checked = check(content)
        assert normalised(checked.rows) == rows
        assert checked.codes["escapes-in-text"] == 1
    assert "escapes-in-text" not in check([*rows, {**rows[0], "chosen": "One\nTwo"}]).codes


def test_json_copied_with_doubled_backslashes_is_named(check: Check) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    broken = json.dumps({**good, "chosen": 'say "hi"'}).replace("\\", "\\\\").encode()
    assert "PostgreSQL's COPY" in check(jsonl([good]) + broken).detail


def test_a_table_without_a_header_is_told_what_it_lacks(check: Check) -> None:
    content = table(("Name a fruit, please.", "Apple: the best!", "No?"), TEXTS)
    assert "a line that names the columns" in check(content).detail


def test_quotes_escaped_by_a_backslash_are_named(check: Check) -> None:
    assert "option('escape'" in check(b'prompt,chosen,rejected\n"a","say \\"hi\\", then",c\n').detail


@pytest.mark.parametrize("entry", ["xl/workbook.xml", "[Content_Types].xml"])
def test_a_workbook_is_told_how_to_be_sent(check: Check, entry: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, "<a/>")
        archive.writestr("xl/worksheets/sheet1.xml", "<a/>")
    checked = check(stream.getvalue())
    assert checked.codes == {"workbook": 1}
    assert "CSV UTF-8" in checked.detail


@pytest.mark.parametrize("word", ["NaN", "NULL", "None", "nan"])
def test_words_for_missing_values_are_remarked_on(check: Check, word: str) -> None:
    lines = [f"Ask {number},Yes {number},{word if number % 2 else 'Not at all'}" for number in range(4)]
    checked = check("\n".join(["prompt,chosen,rejected", *lines]).encode())
    assert checked.is_ready
    (remark,) = [issue for issue in checked.issues if issue["code"] == "missing-value-as-text"]
    assert f"The whole rejected is '{word}'" in remark["detail"]
    assert "in 2 of 4 rows" in remark["detail"]
    assert (remark["line"], remark["pointer"]) == (3, "/rejected")


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_a_file_of_words_for_missing_values_is_refused(check: Check, field: str) -> None:
    rows = [{"prompt": f"Ask {n}", "chosen": f"Yes {n}", "rejected": f"No {n}"} | {field: "NaN"} for n in range(3)]
    lines = [",".join(row.values()) for row in rows]
    refused = check("\n".join(["prompt,chosen,rejected", *lines]).encode())
    assert refused.codes["no-usable-row"] == 1
    assert f"the whole {field} is 'NaN'" in refused.detail
