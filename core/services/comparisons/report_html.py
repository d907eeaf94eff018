"""A comparison as one HTML file that opens without a server, loads nothing and runs no script."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from core.domain.training.comparisons import PairKey
from core.services.comparisons import text
from core.services.comparisons.coloured import STYLE, Scored, coloured_rows
from core.services.comparisons.comparisons import Comparison, Difference
from core.services.comparisons.scatter import accuracy_svg, win_rates_svg

MAX_PAIRS_SHOWN = 10
"""Pairs that changed sides which are shown for each job."""
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#111827;background:#fff}
h1,h2{line-height:1.2}table{border-collapse:collapse;margin:1rem 0;display:block;overflow:auto}
td,th{border:1px solid #d1d5db;padding:.25rem .6rem;text-align:left;vertical-align:top}
td.text{white-space:pre-wrap;max-width:28rem}.hint{color:#4b5563}
"""

Row = Mapping[str, Any]


def as_html(comparison: Comparison, title: str, rows: Mapping[PairKey, Row], scored: Scored) -> str:
    """Return the report.

    Args:
        rows: held-out rows, those that are known: texts of pairs that changed sides.
        scored: tokens of their responses under the jobs' policies, where somebody has asked for them.
    """
    names = {job.job_id: text.label(job) for job in comparison.jobs}
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f"<h2>Recommended: {escape(names.get(comparison.recommended.job_id or '', 'none'))}</h2>",
        f"<p>{escape(comparison.recommended.reason)}</p>",
        "<h2>Reward accuracy against divergence from the reference</h2>",
        accuracy_svg(comparison),
        "<p class='hint'>A point for each evaluation, filled where that policy is published; the line is the Pareto "
        "front. Accuracy on held-out rows; KL(reference || policy) is estimated on a few drawn responses.</p>",
        _table(text.policy_rows(comparison)),
        *_win_rates(comparison, names),
    ]
    if comparison.against is not None:
        parts += [
            f"<h2>Paired differences from {escape(names[comparison.against])}</h2>",
            "<p class='hint'>On the same held-out pairs, with 95 % intervals. Preference loss is -log sigmoid(reward "
            "margin), nats per pair; gained and lost: pairs that only this one, or only the other, gets right.</p>",
            _table(text.difference_rows(comparison)),
            *_changed(comparison, names, rows, scored),
        ]
    for heading, items in text.differing_parts(comparison):
        parts.append(f"<h2>{heading}</h2>")
        parts.append(_table(text.differing_rows(items, names)) if items else "<p>None.</p>")
    if comparison.num_left_out:
        parts.append(f"<p>{comparison.num_left_out} further members are left out.</p>")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _win_rates(comparison: Comparison, names: Mapping[str, str]) -> Iterable[str]:
    for rates in comparison.win_rates:
        yield f"<h2>{escape(rates.title)}</h2>"
        yield win_rates_svg(comparison, rates)
        yield (
            "<p class='hint'>Share of answers that the judge finds better, a tie counting half, with its 95 % interval "
            "over prompts; the line is the Pareto front.</p>"
        )
        yield _table(text.rate_rows(rates, names))


def _changed(
    comparison: Comparison, names: Mapping[str, str], rows: Mapping[PairKey, Row], scored: Scored
) -> Iterable[str]:
    for item in comparison.differences:
        if not item.changed:
            continue
        yield f"<h3>Pairs that changed sides: {escape(names[item.job_id])}</h3>"
        head = ["line", "margin", f"margin of {names[comparison.against or '']}", "prompt", "chosen", "rejected"]
        table = [
            [
                text.place_of(pair),
                f"{pair.margin:+.3f}",
                f"{pair.margin_of_other:+.3f}",
                *(
                    as_plain(rows.get((pair.line, pair.place), {}).get(part))
                    for part in ("prompt", "chosen", "rejected")
                ),
            ]
            for pair in item.changed[:MAX_PAIRS_SHOWN]
        ]
        yield _table([head, *table])
        jobs = {job_id: names[job_id] for job_id in (item.job_id, comparison.against or "") if job_id in names}
        yield from _by_token(item, jobs, rows, scored)


def _by_token(item: Difference, jobs: Mapping[str, str], rows: Mapping[PairKey, Row], scored: Scored) -> Iterable[str]:
    """Yield the pairs whose responses were scored token by token, coloured under both jobs."""
    for pair in item.changed[:MAX_PAIRS_SHOWN]:
        shown = coloured_rows(rows.get((pair.line, pair.place), {}), jobs, scored)
        if shown:
            yield (
                f"<table><caption>Line {text.place_of(pair)}, each token by log p of the policy minus that of the "
                f"reference: green is likelier than before training, red less likely</caption><thead><tr><th>job</th>"
                f"<th>chosen</th><th>rejected</th></tr></thead><tbody>{shown}</tbody></table>"
            )


def as_plain(value: Any) -> str:
    """Return a text, or messages one below the other."""
    if isinstance(value, list):
        return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in value)
    return "" if value is None else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td class='text'>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
