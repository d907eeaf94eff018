"""Tokens of pairs that changed sides, with their log-ratios, out of the requests for scores that are done."""

import json
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import requests
from core.database.tables.scores import ScoreRequest

MAX_REQUESTS = 200
"""Requests that are looked through, the newest ones."""
FULL = 2.0
"""Log-ratio, in nats, from which on a token has the full colour."""
LEVELS = 4
SIDES = ("chosen", "rejected")
STYLE = "".join(
    f".{way}-{level}{{background:rgba({colour},{0.09 * level:.2f})}}"
    for way, colour in (("up", "5,150,105"), ("down", "220,38,38"))
    for level in range(1, LEVELS + 1)
)
Tokens = Sequence[Mapping[str, Any]]
Scored = Mapping[tuple[str, str, str], Tokens]
"""Tokens by job, prompt and response, the latter two as JSON."""


def read_scored(session: Session, job_ids: Collection[str]) -> dict[tuple[str, str, str], Tokens]:
    """Return the tokens of all responses that were scored token by token under these jobs' policies."""
    found: dict[tuple[str, str, str], Tokens] = {}
    for row in requests.list_done(session, ScoreRequest, job_ids, MAX_REQUESTS):
        results = row.results.get("results", [])
        for item, result in zip(row.request.get("items") or [], results, strict=False):
            if result.get("tokens"):
                found.setdefault(_key(row.job_id, item["prompt"], item["response"]), result["tokens"])
    return found


def coloured_rows(row: Mapping[str, Any], names: Mapping[str, str], scored: Scored) -> str:
    """Return rows of a table: under each job both responses of a pair by token; empty where none was scored.

    Args:
        row: the pair: prompt, chosen, rejected.
        names: the jobs to show, by id.
    """
    parts = []
    for job_id, name in names.items():
        cells = [scored.get(_key(job_id, row.get("prompt"), row.get(side))) for side in SIDES]
        if any(cells):
            shown = "".join(f"<td class='text'>{_coloured(tokens or [])}</td>" for tokens in cells)
            parts.append(f"<tr><td>{escape(name)}</td>{shown}</tr>")
    return "".join(parts)


def _coloured(tokens: Tokens) -> str:
    return "".join(map(_span, tokens))


def _span(token: Mapping[str, Any]) -> str:
    ratio = token["log_ratio"]
    return f"<span class='{_level(ratio)}' title='{_title(ratio)}'>{escape(token['text'])}</span>"


def _level(ratio: float | None) -> str:
    level = 0 if ratio is None else min(LEVELS, round(LEVELS * abs(ratio) / FULL))
    return "" if not level or ratio is None else f"{'up' if ratio > 0 else 'down'}-{level}"


def _title(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio:+.2f}"


def _key(job_id: str, prompt: Any, response: Any) -> tuple[str, str, str]:
    return job_id, json.dumps(prompt, sort_keys=True), json.dumps(response, sort_keys=True)
