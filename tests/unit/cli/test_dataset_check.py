"""`preftune datasets check`: the service's own check without a service, for people and for CI."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

GOOD = [{"prompt": f"Name {n}.", "chosen": f"It is {n}, sir.", "rejected": f"No {n}."} for n in range(12)]


def write(path: Path, rows: list[object], extra: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + extra, encoding="utf-8")
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["datasets", "check", *arguments])
    return result.exit_code, result.output


def test_a_good_file_is_told_in_a_table(tmp_path: Path) -> None:
    code, output = run(str(write(tmp_path / "good.jsonl", [*GOOD, {**GOOD[0], "note": 1}])))
    assert code == 0, output
    assert "ready" in output
    assert "13 of 13 rows can be trained on; format: explicit" in output
    assert "The row is the same as line 1." in output
    assert "duplicates: 1 exact" in output
    assert "not used: note" in output
    assert "p95" in output


def test_a_bad_file_names_every_line_and_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", GOOD, 'not json\n{"prompt": "a", "chosen": "b"}\n')
    code, output = run(str(path))
    assert code == 1
    lines = [line.split()[:3] for line in output.splitlines()]
    assert ["13", "error", "invalid-json"] in lines
    assert ["14", "error", "missing-field"] in lines
    assert "rejected: 2 of 14 rows are malformed." in output
    assert "--on-error skip" in output
    assert "on_error" not in output
    assert "Traceback" not in output

    code, output = run(str(path), "--on-error", "skip")
    assert code == 0
    assert "12 of 14 rows can be trained on, 2 invalid" in output


def test_warnings_fail_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "warned.jsonl", [*GOOD, GOOD[0]])
    assert run(str(path))[0] == 0
    assert run(str(path), "--strict")[0] == 1
    assert run(str(write(tmp_path / "clean.jsonl", GOOD)), "--strict")[0] == 0


def test_the_result_for_programs(tmp_path: Path) -> None:
    code, output = run(str(write(tmp_path / "good.jsonl", GOOD)), "--json")
    assert code == 0
    result = json.loads(output)
    assert (result["verdict"], result["num_accepted"], result["format"]) == ("ready", 12, "explicit")


def test_columns_and_kind(tmp_path: Path) -> None:
    renamed = [{"q": row["prompt"], "good": row["chosen"], "bad": row["rejected"]} for row in GOOD]
    path = write(tmp_path / "renamed.jsonl", renamed)
    code, output = run(str(path))
    assert code == 1
    assert "--column prompt=q --column chosen=good --column rejected=bad" in output
    columns = ("--column", "prompt=q", "--column", "chosen=good", "--column", "rejected=bad")
    assert run(str(path), *columns)[0] == 0
    singles = write(tmp_path / "singles.jsonl", [{"prompt": "a", "completion": "b c"}])
    assert "--kind demonstration" in run(str(singles))[1]
    assert run(str(singles), "--kind", "demonstration")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [("--kind", "pairs"), ("--on-error", "ignore"), ("--column", "prompt"), ("--format", "mystery")],
)
def test_misuse_is_told_apart(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, output = run(str(write(tmp_path / "good.jsonl", GOOD)), *arguments)
    assert code == 2
    assert "Traceback" not in output


def test_a_file_that_is_not_there() -> None:
    assert run("/nowhere/pairs.jsonl")[0] == 2


def test_text_of_the_file_is_no_markup(tmp_path: Path) -> None:
    rows = [{"[bold red]x[/] \x1b[31m": 1, "prompt": "a", "choosen": "b"}]
    code, output = run(str(write(tmp_path / "odd.jsonl", list(rows))))
    assert code == 1
    assert "[bold red]x[/]" in output
    assert "\x1b" not in output
