"""Docstrings of the product: the first line is a sentence or a noun phrase that can be read alone, as in a hover."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "worker", "cli", "core", "client/preftune", "migrations")
MIN_WORDS = 3
NO_SUBJECT = re.compile(r"(Of|So|From|With|By|As|To|At|Until|Raises|None)\b|\[")
"""Beginnings of a first line that leaves out what is returned, done or meant; `[` is a shape without its array."""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def modules() -> list[Path]:
    """All but the migrations' versions, whose first line is alembic's title of them."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path for path in found if "versions" not in path.parts)


def words(text: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return re.findall(r"[a-z0-9]+", spaced.lower())


def fault(name: str, docstring: str) -> str | None:
    """What is wrong with the first line, with the way out; None if nothing is."""
    first = docstring.splitlines()[0].strip()
    if words(first) == words(name):
        return "it only repeats the name: say what the name cannot, or leave the docstring out"
    if len(first.split()) < MIN_WORDS:
        return f"it has fewer than {MIN_WORDS} words: say what the thing does or is"
    if not first.endswith("."):
        return "it is no sentence that ends on this line: end it with a period, and put the rest below an empty line"
    if NO_SUBJECT.match(first):
        return 'it has no subject: begin with a verb ("Return …", "Check …") or a noun ("Digest of …")'
    return None


def docstrings(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, name, docstring) of a module and everything in it; a module goes by its file's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
            name = path.stem if isinstance(node, ast.Module) else node.name
            yield node.body[0].lineno, name, docstring


def attribute_docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string that stands below an assignment."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for before, after in pairwise(body if isinstance(body, list) else []):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(before, ast.Assign | ast.AnnAssign) and is_text and isinstance(after.value.value, str):
                yield after.lineno, after.value.value


def test_first_lines_can_be_read_alone() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} ({name}): {wrong}\n    {docstring.splitlines()[0]}"
        for path in modules()
        for line, name, docstring in docstrings(path)
        if (wrong := fault(name, docstring))
    ]
    assert not faults, "first lines of docstrings:\n" + "\n".join(faults)


def test_texts_of_attributes_have_a_subject() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in modules()
        for line, text in attribute_docstrings(path)
        if NO_SUBJECT.match(text) and not text.startswith(("[", "None"))
    ]
    assert not faults, 'say what the value is ("Limit of one file."), not only whose:\n' + "\n".join(faults)


@pytest.mark.parametrize(
    ("name", "docstring"),
    [
        ("sft_digest", "Of the SFT policy; None when the plan has no SFT."),
        ("get", "Raises ScoresNotFound."),
        ("probabilities", "[K, G n, m] of one block."),
        ("is_over", "Is the row's day over?"),
        ("list_events", "Oldest first."),
        ("read_back", "Read back."),
        ("PairScores", "Pair scores."),
        ("render", "The whole picture: a headline,\nand a bar."),
    ],
)
def test_a_line_that_cannot_be_read_alone_is_refused(name: str, docstring: str) -> None:
    assert fault(name, docstring)


@pytest.mark.parametrize(
    "docstring", ["Return the digest of the SFT policy.", "Offset of a row in the file.\n\nBytes."]
)
def test_a_line_that_can_be_read_alone_passes(docstring: str) -> None:
    assert fault("sft_digest", docstring) is None
