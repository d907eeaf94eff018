"""Faults planted in real data, and found: duplicates exactly, a leaked prompt exactly; flips are left to training.

The data lie beside the repository; `tests/unit/datasets/test_lint.py` does the same with made-up rows.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from core.datasets.check.check import check_file
from core.datasets.options import CheckOptions
from core.datasets.result import ISSUES_FILE, ROWS_FILE, CheckResult
from core.datasets.splitting import find_shared_prompts

HELPFUL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hh-helpful.jsonl"
pytestmark = pytest.mark.skipif(not HELPFUL.is_file(), reason="the collection of data files is not here")

Row = dict[str, Any]


def run(folder: Path, name: str, rows: list[Row]) -> tuple[CheckResult, list[Row]]:
    output = folder / name
    output.mkdir()
    source = output / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = check_file(source, CheckOptions(), output)
    return result, [json.loads(line) for line in (output / ISSUES_FILE).open()]


@pytest.fixture(scope="module")
def real() -> list[Row]:
    return [json.loads(line) for line in HELPFUL.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def before(real: list[Row], tmp_path_factory: pytest.TempPathFactory) -> CheckResult:
    return run(tmp_path_factory.mktemp("before"), "real", real)[0]


def test_the_length_bias_of_real_data_is_measured(before: CheckResult) -> None:
    pairs = before.report["statistics"]["pairs"]
    assert pairs["longer_wins_share"] == pytest.approx(0.604, abs=0.005)
    assert before.report["statistics"]["languages"]["en"] > 0.95


def test_planted_duplicates_are_found_exactly(real: list[Row], before: CheckResult, tmp_path: Path) -> None:
    """5 % of the rows again, at random places."""
    rng = random.Random(5)
    copies = rng.sample(range(len(real)), len(real) // 20)
    tagged = [(row, None) for row in real]
    for original in copies:
        tagged.insert(rng.randrange(len(tagged) + 1), (real[original], original))
    rows = [row for row, _ in tagged]
    result, issues = run(tmp_path, "doubled", rows)
    first_line: dict[str, int] = {}
    expected = []
    for line, row in enumerate(rows, 1):
        key = json.dumps(row)
        if key in first_line:
            expected.append((line, f"The row is the same as line {first_line[key]}."))
        first_line.setdefault(key, line)
    found = [(issue["line"], issue["detail"]) for issue in issues if issue["code"] == "duplicate-row"]
    assert found == expected
    planted = result.report["counts"]["duplicate-row"] - before.report["counts"].get("duplicate-row", 0)
    assert planted == len(copies) == 100


def test_flipped_labels_change_what_is_measured_and_nothing_is_refused(
    real: list[Row], before: CheckResult, tmp_path: Path
) -> None:
    """10 % flipped: no lint can tell a flip from an opinion; training does. A flipped copy of a kept row is found."""
    flipped = set(random.Random(7).sample(range(len(real)), len(real) // 10))
    swap = {"chosen": "rejected", "rejected": "chosen"}
    rows = [{name: row[swap[name]] for name in row} if index in flipped else row for index, row in enumerate(real)]
    result, _ = run(tmp_path, "flipped", rows)
    assert (result.verdict, result.num_accepted) == ("ready", before.num_accepted)
    share = result.report["statistics"]["pairs"]["longer_wins_share"]
    old = before.report["statistics"]["pairs"]["longer_wins_share"] or 0.0
    assert share == pytest.approx(old * 0.9 + (1 - old) * 0.1, abs=0.02)

    _, issues = run(tmp_path, "both", real + [rows[index] for index in sorted(flipped)])
    lines = {issue["line"] for issue in issues if issue["code"] == "reversed-pair"}
    assert lines >= set(range(len(real) + 1, len(real) + len(flipped) + 1))


def test_a_leaked_validation_prompt_is_found_exactly(real: list[Row], tmp_path: Path) -> None:
    train, validation = real[:1500], real[1500:1600]
    run(tmp_path, "validation", validation)
    run(tmp_path, "clean", train)
    _, _ = run(tmp_path, "leaked", [*train, validation[42]])
    clean = find_shared_prompts(tmp_path / "clean" / ROWS_FILE, tmp_path / "validation" / ROWS_FILE)
    leaked = find_shared_prompts(tmp_path / "leaked" / ROWS_FILE, tmp_path / "validation" / ROWS_FILE)
    assert leaked.num_prompts == clean.num_prompts + 1
    assert set(leaked.lines) - set(clean.lines) == {1501}
