"""What the documents say is shown is shown: tests and files that they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted((ROOT / "docs").rglob("*.md"))


def written_tests() -> set[str]:
    """Return the names of all tests."""
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_finding_of_the_review_has_tests_that_exist() -> None:
    text = (ROOT / "docs" / "evidence" / "security-review.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|[^|]+\|([^|]+)\|$", text, re.MULTILINE)
    assert [number for number, _ in rows] == [str(number) for number in range(1, 25)]
    written = written_tests()
    for number, tests in rows:
        named = set(re.findall(r"`(test_\w+)`", tests))
        assert named, number
        assert named <= written, (number, named - written)


def test_every_fault_of_the_dashboard_has_tests_that_exist_or_is_open() -> None:
    text = (ROOT / "docs" / "evidence" / "ux-review.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (B\d+b?) \|[^|]+\|([^|]+)\|$", text, re.MULTILINE))
    assert list(rows) == ["B1", "B1b", *(f"B{number}" for number in range(2, 33))]
    written = written_tests()
    for fault, state in rows.items():
        named = set(re.findall(r"`(test_\w+)`", state))
        assert named or "open: " in state, fault
        assert named <= written, (fault, named - written)
    assert set(re.findall(r"`(test_\w+)`", text)) <= written


def test_every_threat_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "operate" / "security.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (S\d+) \|.*\|([^|]+)\|$", text, re.MULTILINE))
    assert list(rows) == [f"S{number}" for number in range(1, len(rows) + 1)]
    assert len(rows) >= 26
    written = written_tests()
    for threat, tests in rows.items():
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, threat
        assert set(named) <= written, (threat, set(named) - written)


def test_every_promise_to_openais_clients_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "evidence" / "openai.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!promise)(?!-)(.+) \|(.+)\|$", text, re.MULTILINE)
    assert len(rows) >= 25
    written = written_tests()
    for promise, tests in rows:
        named = set(re.findall(r"`(test_\w+)`", tests))
        assert named or "clients" in tests, promise
        assert named <= written, (promise, named - written)


FOLDERS = ("api", "benchmarks", "client", "cli", "core", "docker", "docs", "examples", "migrations", "tests", "worker")
OF_OTHERS = {"convert_hf_to_gguf.py"}
"""Programs of other projects."""
FOR_DEVELOPERS = [
    *sorted((ROOT / "docs" / "develop").rglob("*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "README.md",
    ROOT / "tests" / "README.md",
]


@pytest.mark.parametrize("path", FOR_DEVELOPERS, ids=lambda path: path.name)
def test_files_that_are_named_to_developers_exist(path: Path) -> None:
    """A path from the root exists; so does a bare name of a module somewhere. Placeholders: `<area>`, `*`, `|`."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    words = [word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()]
    named = [re.sub(r"<\w+>", "*", word.rstrip(",;:")) for word in words if not re.search(r"[|{(…$]", word)]
    paths = [word.partition(":")[0] for word in named if word.partition("/")[0] in FOLDERS and "/" in word]
    names = [word for word in named if re.fullmatch(r"\w+\.py", word)]
    missing = [word for word in paths if not any(ROOT.glob(word.rstrip("/") + ("*" if word.endswith("_") else "")))]
    known = {found.name for folder in FOLDERS for found in (ROOT / folder).rglob("*.py")}
    assert missing + [word for word in names if word not in known | OF_OTHERS] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_a_decision_has_a_number_of_its_own_which_its_title_repeats() -> None:
    pages = sorted((ROOT / "docs" / "develop" / "decisions").glob("*.md"))
    assert pages
    numbers = [path.name.split("-")[0] for path in pages]
    assert len(set(numbers)) == len(numbers), "two decisions of one number"
    titles = [path.read_text(encoding="utf-8").partition(":")[0] for path in pages]
    assert titles == [f"# {number}" for number in numbers]
