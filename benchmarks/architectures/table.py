"""The sweep's results as a table of the documentation, between two markers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- sweep: begin -->", "<!-- sweep: end -->"


def write_table(page: Path, results: Sequence[dict[str, Any]], version: str) -> None:
    """Replaces what stands between the markers of the page.

    Raises:
        ValueError: the page has no markers.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page.name} has no markers for the table")
    page.write_text(f"{before}{_BEGIN}\n\n{_table(results, version)}\n{_END}{after}", encoding="utf-8")


def _table(results: Sequence[dict[str, Any]], version: str) -> str:
    counts = Counter(result["verdict"] for result in results)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    lines = [
        f"transformers {version}: {len(results)} types; {summary}.",
        "",
        "| type | verdict | runs | largest difference: log-probabilities (nats) | gradients | saved | LoRA merged | "
        "LoRA reaches | remark |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(result) for result in sorted(results, key=lambda item: str(item["model_type"]))]
    return "\n".join(lines) + "\n"


def _line(result: dict[str, Any]) -> str:
    runs = {True: "packed", False: "one at a time", None: ""}[result.get("is_packed")]
    remarks = [*result["faults"], *(["no cache"] if result.get("has_cache") is False else []), result["reason"]]
    share = result.get("adapter_share")
    differences = ("value_difference", "gradient_difference", "saved_difference", "merged_difference")
    cells = [
        f"`{result['model_type']}`",
        result["verdict"],
        runs,
        *(_number(result.get(name)) for name in differences),
        "" if share is None else f"{share:.0%}",
        "; ".join(remark for remark in remarks if remark).replace("|", "/").replace("\n", " "),
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"
