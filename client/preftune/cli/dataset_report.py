"""Report of a dataset in the terminal. Text of the user's file is never interpreted as markup or control codes."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from preftune.cli.console import err, out
from preftune.cli.words import as_options, counted

MAX_ISSUES_SHOWN = 20
_PLACES = {"error": 0, "warning": 1}
_LENGTH_COLUMNS = ("min", "p50", "p90", "p95", "p99", "max")


def print_result(result: dict[str, Any]) -> None:
    """Print a local check: the issues, what the file is, and the verdict last."""
    refusal = result["refusal"]
    if refusal is None or not says_all(refusal["detail"], result["report"]):
        print_report(result["report"])
    print_statistics(result["report"]["statistics"])
    rows = f"{result['num_accepted']:,} of {counted(result['num_rows'], 'row')} can be trained on"
    if result["num_set_aside"]:
        rows += f", {result['num_set_aside']:,} set aside"
    if result["num_rejected"]:
        rows += f", {result['num_rejected']:,} invalid"
    if result["num_rows"]:
        out.print(f"{rows}; format: {result['format'] or 'not recognised'}", markup=False)
    if refusal:
        out.print(Text("rejected: ", "bold red") + Text(as_options(refusal["detail"])))
    else:
        out.print(Text("ready", "bold green"))


def says_all(detail: str, report: dict[str, Any]) -> bool:
    """Whether the reason for which a file was rejected is all that its report has."""
    issues = report["issues"]
    return len(issues) == 1 and issues[0]["line"] is None and issues[0]["detail"] in detail


def print_report(report: dict[str, Any], console: Console = out) -> None:
    """Print the first issues with their lines, errors first, and their number by code."""
    issues = sorted(report["issues"], key=lambda issue: _PLACES.get(issue["severity"], 2))
    if not issues:
        return
    table = Table("line", "severity", "code", "detail", box=None)
    for issue in issues[:MAX_ISSUES_SHOWN]:
        line = "" if issue["line"] is None else str(issue["line"])
        style = "red" if issue["severity"] == "error" else "yellow"
        table.add_row(line, Text(issue["severity"], style), Text(issue["code"]), Text(as_options(issue["detail"])))
    console.print(table)
    hidden = sum(report["counts"].values()) - min(len(issues), MAX_ISSUES_SHOWN)
    if hidden > 0:
        counts = ", ".join(f"{code} {count:,}" for code, count in report["counts"].items())
        console.print(f"… and {hidden:,} more; in all: {counts}", markup=False)


def print_data_warnings(preview: dict[str, Any]) -> bool:
    """What `POST /jobs/preview` says of the data, on stderr; false where there is nothing to say."""
    lines = [f"{warning['dataset_id']}: {as_options(warning['detail'])}" for warning in preview["warnings"]]
    lines += _set_aside(preview["rows"]) if preview["rows"] else []
    for line in lines:
        err.print(Text("warning: ", "yellow") + Text(line), soft_wrap=True)
    return bool(lines)


def _set_aside(rows: dict[str, Any]) -> list[str]:
    """What the base model cannot use of the rows."""
    found = [
        (rows["num_over_max_length"], f"they have more than {rows['max_length']:,} tokens"),
        (rows["num_equal_once_rendered"], "chosen and rejected are the same tokens once rendered"),
        *((problem["num_rows"], problem["detail"]) for problem in rows["problems"]),
    ]
    total = counted(rows["num_rows"], "row") + ("" if rows["is_exact"] else " looked at")
    return [f"{number:,} of {total} would be set aside: {why}" for number, why in found if number]


def print_statistics(statistics: dict[str, Any]) -> None:
    """Print lengths by field, and the lint's counts."""
    if not statistics.get("chars"):
        return
    table = Table("characters", *_LENGTH_COLUMNS, box=None)
    for name, lengths in statistics["chars"].items():
        table.add_row(name, *(f"{lengths[column]:,}" for column in _LENGTH_COLUMNS))
    out.print(table)
    for line in _remarks(statistics):
        out.print(line, markup=False)


def _remarks(statistics: dict[str, Any]) -> list[str]:
    lines = []
    if pairs := statistics.get("pairs"):
        share = pairs["longer_wins_share"]
        shown = "no pair differs in length" if share is None else f"the longer response is chosen in {share:.0%}"
        lines.append(f"length: {shown}")
    if duplicates := statistics.get("duplicates"):
        lines.append(
            f"duplicates: {duplicates['duplicate_rows']:,} exact, {duplicates['near_duplicate_rows']:,} near, "
            f"{duplicates['reversed_pairs']:,} reversed; {counted(duplicates['distinct_prompts'], 'prompt')}"
        )
    if languages := statistics.get("languages"):
        lines.append("languages: " + ", ".join(f"{name} {share:.0%}" for name, share in list(languages.items())[:5]))
    if ignored := statistics.get("ignored_fields"):
        lines.append("not used: " + ", ".join(name if name.isprintable() else repr(name) for name in ignored[:10]))
    return lines


def print_json(value: dict[str, Any]) -> None:
    """Print JSON without wrapping or styling."""
    print(json.dumps(value, indent=2, ensure_ascii=True))  # noqa: T201 - the command's output, for other programs
