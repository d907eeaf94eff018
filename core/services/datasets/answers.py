"""Answers of a dataset of responses, under the prompt that each is to: what models and samples are compared by."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

import orjson

from core.domain.dataset_rows import CONTEXT_FIELDS, DatasetKind
from core.domain.errors import Conflict
from core.services.backend import Backend
from core.services.cursors import decode_offset, encode_cursor
from core.services.datasets.contents import row_lines
from core.services.datasets.datasets import find_place
from core.services.datasets.drawing import MAX_ROWS_READ
from core.services.datasets.row_pages import MAX_PAGE_BYTES, texts_of
from core.services.views import Page
from core.storage import keys

Row = dict[str, Any]
Prompt = dict[str, Any]
"""`position` among the prompts from 1, `prompt`, perhaps context, and `answers` of `line`, `model`, `response`."""


class NotResponses(Conflict):
    code = "dataset-not-responses"
    title = "The rows are no answers of models"


def list_answers(
    backend: Backend,
    project_id: str,
    dataset_id: str,
    *,
    limit: int = 20,
    cursor: str | None = None,
    search: str | None = None,
) -> Page[Prompt]:
    """Return a page of different prompts in the order of the file, each with all answers to it.

    `search`: those of which the prompt or an answer holds the text; upper and lower case are one. The first
    `MAX_ROWS_READ` rows are looked at. Raises DatasetNotFound, DatasetNotReady, NotResponses.
    """
    place = find_place(backend, project_id, dataset_id, cursor)
    if place.row.kind is not DatasetKind.RESPONSES:
        detail = f"{dataset_id} is of kind {place.row.kind.value}; GET /datasets/{dataset_id}/rows lists its rows."
        raise NotResponses(detail)
    key = keys.dataset_rows(project_id, place.row.id)

    def rows() -> Iterator[tuple[bytes, Row, int]]:
        for line in islice(row_lines(backend.store, key), MAX_ROWS_READ):
            row = orjson.loads(line)
            yield blake2b(orjson.dumps(row["prompt"]), digest_size=16).digest(), row, len(line)

    start = decode_offset(place.cursor)
    wanted = None if search is None else _holding(rows(), search.casefold())
    return place.page(_page(rows(), start, limit, wanted))


def _holding(rows: Iterable[tuple[bytes, Row, int]], text: str) -> set[bytes]:
    """Return the prompts that hold a text, or of which an answer does."""
    return {
        digest
        for digest, row, _ in rows
        if any(text in found.casefold() for found in texts_of([row["prompt"], row["response"]]))
    }


def _page(rows: Iterable[tuple[bytes, Row, int]], start: int, limit: int, wanted: set[bytes] | None) -> Page[Prompt]:
    """Return at most `limit` prompts from the place `start` on, and at most a page of bytes but for the first."""
    places: dict[bytes, int] = {}
    shown: dict[bytes, Prompt] = {}
    sizes: dict[bytes, int] = {}
    end: int | None = None
    for digest, row, num_bytes in rows:
        is_new = digest not in places
        place = places.setdefault(digest, len(places))
        if is_new and end is None and place >= start and (wanted is None or digest in wanted):
            if len(shown) == limit:
                end = place
            else:
                shown[digest] = _prompt(row, place)
                sizes[digest] = 0
        if digest in shown:
            sizes[digest] += num_bytes
            shown[digest]["answers"].append(_answer(row))
        while len(shown) > 1 and sum(sizes.values()) > MAX_PAGE_BYTES:
            last, _ = shown.popitem()
            del sizes[last]
            end = places[last]
    return Page(data=list(shown.values()), next_cursor=None if end is None else encode_cursor(str(end)))


def _prompt(row: Row, place: int) -> Prompt:
    context = {name: row[name] for name in CONTEXT_FIELDS if name in row}
    return {"position": place + 1, "prompt": row["prompt"], **context, "answers": []}


def _answer(row: Row) -> dict[str, Any]:
    return {"line": row["line"], "model": row.get("model", ""), "response": row["response"]}
