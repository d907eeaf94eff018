"""Scores by token of pairs that changed sides, which the HTML report of a comparison then has in colour."""

from typing import Any

from preftune import Client


def score_changed(client: Client, comparison: dict[str, Any], number: int) -> None:
    """Score the first pairs that changed sides between the recommended job and the one that all are compared with.

    Where these are the same, or no pair has changed sides between them, the first job with such pairs is taken.
    """
    differing = [item for item in comparison["differences"] if item["changed"]]
    recommended = comparison["recommended"]["job_id"]
    item = next((item for item in differing if item["job_id"] == recommended), next(iter(differing), None))
    if item is None:
        return
    rows = [row for pair in item["changed"][:number] if (row := _row_of(client, comparison, pair)) is not None]
    items = [{"prompt": row["prompt"], "response": row[side]} for row in rows for side in ("chosen", "rejected")]
    for job_id in (item["job_id"], comparison["against"]) if items else ():
        client.jobs.score(job_id, items=items, tokens=True)


def _row_of(client: Client, comparison: dict[str, Any], pair: dict[str, Any]) -> dict[str, Any] | None:
    """Return the pair's texts; None where they cannot be told from those of other rows of its line."""
    limit = pair["num_of_line"] + 1
    page = client.datasets.rows(comparison["pairs_dataset_id"], line=pair["line"], limit=min(100, limit))
    rows: list[dict[str, Any]] = [row for row in page["data"] if row["line"] == pair["line"]]
    return rows[pair["place"] - 1] if len(rows) == pair["num_of_line"] else None
