"""A comparison as plain text, for people at a terminal and for agents."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.domain.training.comparisons import Estimated
from core.services.comparisons.comparisons import ChangedPair, ComparedJob, Comparison, Difference
from core.services.comparisons.differing import Differing
from core.services.comparisons.win_rates import WinRates

_DASH = "-"


def as_text(comparison: Comparison) -> str:
    """Return the tables one below the other; columns are aligned by spaces."""
    names = {job.job_id: label(job) for job in comparison.jobs}
    parts = [
        _title("Recommended"),
        names.get(comparison.recommended.job_id or "", "none") + "\n" + comparison.recommended.reason,
        _title("Published policies: reward accuracy on held-out rows against divergence from the reference"),
        _table(policy_rows(comparison)),
        _title("All evaluations, the Pareto front marked: none has more accuracy at no more divergence"),
        _table(point_rows(comparison)),
        *(part for rates in comparison.win_rates for part in (_title(rates.title), _table(rate_rows(rates, names)))),
    ]
    if comparison.against is not None:
        parts += [
            _title(f"Paired differences from {names[comparison.against]}, 95 % intervals, the same held-out pairs"),
            _table(difference_rows(comparison)),
        ]
        changed = changed_rows(comparison)
        if len(changed) > 1:
            parts += [_title(f"Pairs that changed sides from {names[comparison.against]}"), _table(changed)]
    for title, items in differing_parts(comparison):
        parts += [_title(title), _table(differing_rows(items, names)) if items else "none"]
    if comparison.num_left_out:
        parts.append(f"\n{comparison.num_left_out} further members are left out.")
    return "\n".join(parts) + "\n"


def differing_parts(comparison: Comparison) -> tuple[tuple[str, list[Differing]], ...]:
    return (
        ("Settings that differ", comparison.settings),
        ("Data that differs", comparison.data),
        ("Code and device that differ", comparison.code),
    )


def label(job: ComparedJob) -> str:
    name = job.name or job.job_id
    return name if job.beta is None else f"{name} (beta {job.beta:g})"


def policy_rows(comparison: Comparison) -> list[list[str]]:
    """Return one row for each job, with a head."""
    rows = [["job", "id", "status", "step", "KL (nats)", "reward accuracy", "interval", "margin", "loss", "front"]]
    for job in comparison.jobs:
        held_out = job.held_out or {}
        accuracy = held_out.get("reward_accuracy") or {}
        published = next((point for point in job.points if point.is_published), None)
        rows.append(
            [
                label(job),
                job.job_id,
                job.status.value,
                _DASH if published is None else str(published.step),
                number(published.kl if published else None),
                number(accuracy.get("value")),
                _interval(accuracy.get("low"), accuracy.get("high")),
                number((held_out.get("reward_margin") or {}).get("value")),
                number((held_out.get("loss") or {}).get("value")),
                "yes" if published is not None and published.is_on_front else "",
            ]
        )
    return rows


def point_rows(comparison: Comparison) -> list[list[str]]:
    """Return one row for each evaluation, with a head."""
    rows = [["job", "step", "KL (nats)", "reward accuracy", "margin", "loss", "published", "front"]]
    for job in comparison.jobs:
        for point in job.points:
            figures = (point.kl, point.reward_accuracy, point.reward_margin, point.loss)
            marks = ["yes" if is_so else "" for is_so in (point.is_published, point.is_on_front)]
            rows.append([label(job), str(point.step), *map(number, figures), *marks])
    return rows


def rate_rows(rates: WinRates, names: Mapping[str, str]) -> list[list[str]]:
    """Return one row for each judged policy, with a head."""
    rows = [["job", "step", "KL (nats)", "win rate", "interval", "prompts", "without a verdict", "published", "front"]]
    for point in rates.points:
        rate = point.win_rate
        rows.append(
            [
                names[point.job_id],
                _DASH if point.step is None else str(point.step),
                number(point.kl),
                number(rate.value),
                _interval(rate.low, rate.high),
                str(point.num_prompts),
                str(point.num_failed),
                *("yes" if is_so else "" for is_so in (point.is_published, point.is_on_front)),
            ]
        )
    return rows


def difference_rows(comparison: Comparison) -> list[list[str]]:
    """Return one row for each other job, with a head."""
    names = {job.job_id: label(job) for job in comparison.jobs}
    rows = [["job", "pairs", "reward accuracy", "preference loss (nats)", "gained", "lost", ""]]
    return rows + [_difference_row(names[item.job_id], item) for item in comparison.differences]


def _difference_row(name: str, item: Difference) -> list[str]:
    if item.reason is not None:
        return [name, _DASH, _DASH, _DASH, _DASH, _DASH, item.reason]
    figures = [estimated(item.reward_accuracy), estimated(item.preference_loss)]
    return [name, str(item.num_pairs), *figures, str(item.gained), str(item.lost), ""]


def changed_rows(comparison: Comparison) -> list[list[str]]:
    """Return one row for each listed pair that changed sides, with a head."""
    names = {job.job_id: label(job) for job in comparison.jobs}
    rows = [["job", "line", "right is", "margin", f"margin of {names.get(comparison.against or '', '')}"]]
    for item in comparison.differences:
        for pair in item.changed:
            right = "this job" if pair.margin > 0 else "the other one"
            margins = [f"{margin:+.4f}" for margin in (pair.margin, pair.margin_of_other)]
            rows.append([names[item.job_id], place_of(pair), right, *margins])
        left = item.gained + item.lost - len(item.changed)
        if left:
            rows.append([names[item.job_id], f"{left} more", "", "", ""])
    return rows


def place_of(pair: ChangedPair) -> str:
    """Name a held-out pair by its line, and by its place in it where the line is a ranked list."""
    return str(pair.line) if pair.num_of_line == 1 else f"{pair.line}, pair {pair.place} of {pair.num_of_line}"


def differing_rows(items: Sequence[Differing], names: dict[str, str]) -> list[list[str]]:
    """Return one row for each job, a column for each thing that differs, with a head."""
    rows = [["job", *(item.name for item in items)]]
    for job_id, name in names.items():
        if any(job_id in item.values for item in items):
            rows.append([name, *(shown(item.values.get(job_id)) for item in items)])
    return rows


def estimated(figure: Estimated | None) -> str:
    if figure is None:
        return _DASH
    return f"{figure.value:+.4f} ({_interval(figure.low, figure.high, '+')})"


def number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.4g}"


def shown(value: Any) -> str:
    """Return a setting in one line."""
    if value is None:
        return _DASH
    return f"{len(value)} values" if isinstance(value, list) and len(value) > 3 else str(value)


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "no interval" if low is None or high is None else f"{low:{sign}.4f} to {high:{sign}.4f}"


def _title(text: str) -> str:
    return f"\n{text}\n{'-' * len(text)}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
