"""Previews of a dataset for a base model: rows as rendered and encoded, and how many a job would set aside."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson

from core.datasets.rows.lengths import summarise
from core.domain.errors import InvalidRequest
from core.domain.estimates.work import Lengths, Texts
from core.domain.set_aside import SetAsideReason
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.row_pages import RowsQuery
from core.services.datasets.tokenizers import OpenedModel, open_tokenizer
from core.services.views import Page, TokenStatisticsView
from core.storage import keys
from core.storage.object_store import ObjectStore, read_stored
from core.tokenization.encode_part import EQUAL_PAIR
from core.tokenization.errors import UnencodableRow
from core.tokenization.preview import PreviewedText, Row, measure_row, preview_row

MAX_TEXT_BYTES = 512 * 1024
"""Size of the rows of one page of previews, once there is one."""
MAX_SHOWN_TOKENS = 4096
"""Tokens shown of one text."""
NUM_STRETCHES = 16
STRETCH_BYTES = 64 * 1024
"""Statistics read so many stretches of the rows; a smaller file is read whole."""
MAX_KEPT = 32
"""Statistics that are kept of each open tokenizer: the rows of a dataset do not change."""
MAX_PROBLEMS = 5
"""Different reasons why rows are not encodable that are told."""


@dataclass(frozen=True, kw_only=True)
class SeenBy:
    """A base model with the settings of a job that decide how rows are encoded."""

    base_model: str
    """Name as requested."""
    max_length: int
    template_kwargs: dict[str, Any] = field(default_factory=dict)


def preview_rows(
    backend: Backend, project_id: str, dataset_id: str, seen_by: SeenBy, query: RowsQuery
) -> Page[dict[str, Any]]:
    """Return normalised rows, each with `preview`. Raises InvalidRequest for an unknown base model."""
    opened = open_tokenizer(backend, project_id, seen_by.base_model, seen_by.template_kwargs)
    page = datasets.list_rows(backend, project_id, dataset_id, replace(query, max_bytes=MAX_TEXT_BYTES))
    with opened.shared.lock:
        data = [{**row, "preview": _preview(opened, cast(Row, row), seen_by.max_length)} for row in page.data]
    return Page(data=data, next_cursor=page.next_cursor)


def token_statistics(backend: Backend, project_id: str, dataset_id: str, seen_by: SeenBy) -> TokenStatisticsView:
    """Return lengths in tokens and how many rows a job sets aside. Raises InvalidRequest for a wrong model."""
    opened = open_tokenizer(backend, project_id, seen_by.base_model, seen_by.template_kwargs)
    key = keys.dataset_rows(project_id, datasets.find_ready(backend, project_id, dataset_id).id)
    num_bytes = backend.store.stat(key).num_bytes
    asked = (key, num_bytes, seen_by.max_length)
    with opened.shared.lock:
        known = opened.shared.statistics
        if asked not in known:
            counts = _Counts(opened, seen_by.max_length)
            for row in _sample(backend.store, key, num_bytes):
                counts.add(row)
            known[asked] = counts.view(seen_by, is_exact=num_bytes <= NUM_STRETCHES * STRETCH_BYTES)
        known.move_to_end(asked)
        while len(known) > MAX_KEPT:
            known.popitem(last=False)
        found: TokenStatisticsView = known[asked]
    return replace(found, base_model=seen_by.base_model)


def find_token_statistics(
    backend: Backend, project_id: str, dataset_id: str, seen_by: SeenBy
) -> TokenStatisticsView | None:
    """Return `token_statistics`; None where this machine lacks the base model or cannot use it."""
    try:
        return token_statistics(backend, project_id, dataset_id, seen_by)
    except InvalidRequest:
        return None


class _Counts:
    def __init__(self, opened: OpenedModel, max_length: int) -> None:
        self._opened, self._max_length = opened, max_length
        self._num_rows = self._num_over_context = 0
        self._reasons: Counter[SetAsideReason] = Counter()
        self._problems: dict[str, dict[str, Any]] = {}
        self._lengths: dict[str, Counter[int]] = {}
        self._kept: list[Lengths] = []
        """Lengths of the rows that fit; of unpaired ones the response is the first."""
        self._texts: list[Texts] = []
        self._num_good = 0

    def add(self, row: Row) -> None:
        self._num_rows += 1
        try:
            measured = measure_row(self._opened.shared.tokenizer, row)
        except UnencodableRow as error:
            self._reasons[SetAsideReason.NOT_ENCODABLE] += 1
            self._note(error.detail, row["line"])
            return
        num_tokens = measured.lengths["row"]
        if reason := _reason(num_tokens, self._max_length, is_equal_pair=measured.is_equal_pair):
            self._reasons[reason] += 1
        else:
            prompt, first, *second = (length for name, length in measured.lengths.items() if name != "row")
            self._kept.append((prompt, first, second[0] if second else 0))
            self._texts.append(measured.texts)
            self._num_good += row.get("label") is not False
        context_length = self._opened.context_length
        self._num_over_context += context_length is not None and num_tokens > context_length
        for name, length in measured.lengths.items():
            self._lengths.setdefault(name, Counter())[length] += 1

    def _note(self, detail: str, line: int) -> None:
        if detail in self._problems or len(self._problems) < 10 * MAX_PROBLEMS:
            problem = self._problems.setdefault(detail, {"detail": detail, "num_rows": 0, "line": line})
            problem["num_rows"] += 1

    def view(self, seen_by: SeenBy, *, is_exact: bool) -> TokenStatisticsView:
        num_over = self._reasons[SetAsideReason.TOO_LONG]
        problems = sorted(self._problems.values(), key=lambda problem: (-problem["num_rows"], problem["line"]))
        return TokenStatisticsView(
            base_model=seen_by.base_model,
            max_length=self._max_length,
            is_exact=is_exact,
            num_rows=self._num_rows,
            num_over_max_length=num_over,
            context_length=self._opened.context_length,
            num_over_context=self._num_over_context,
            num_equal_once_rendered=self._reasons[SetAsideReason.EQUAL_ONCE_RENDERED],
            num_unencodable=self._reasons[SetAsideReason.NOT_ENCODABLE],
            problems=problems[:MAX_PROBLEMS],
            share_over_max_length=round(num_over / self._num_rows, 4) if self._num_rows else 0.0,
            kept_rows=self._kept,
            kept_texts=self._texts,
            num_good=self._num_good,
            lengths={name: dict(summarise(counts)) for name, counts in self._lengths.items()},
        )


def _reason(num_tokens: int, max_length: int, *, is_equal_pair: bool) -> SetAsideReason | None:
    """Return why a job would set the row aside, as the encoder decides it."""
    if num_tokens > max_length:
        return SetAsideReason.TOO_LONG
    return SetAsideReason.EQUAL_ONCE_RENDERED if is_equal_pair else None


def _preview(opened: OpenedModel, row: Row, max_length: int) -> dict[str, Any]:
    try:
        preview = preview_row(opened.shared.tokenizer, row)
    except UnencodableRow as error:
        reason = SetAsideReason.NOT_ENCODABLE
        return {"num_tokens": None, "fits": False, "set_aside": reason, "problem": error.detail, "texts": {}}
    texts = {"prompt": preview.prompt, **preview.responses}
    found = _reason(preview.num_tokens, max_length, is_equal_pair=preview.is_equal_pair)
    is_equal = found is SetAsideReason.EQUAL_ONCE_RENDERED
    return {
        "num_tokens": preview.num_tokens,
        "fits": preview.num_tokens <= max_length,
        "fits_context": opened.context_length is None or preview.num_tokens <= opened.context_length,
        "set_aside": found,
        "problem": f"{EQUAL_PAIR[0].upper()}{EQUAL_PAIR[1:]}." if is_equal else None,
        "texts": {name: _shown(text) for name, text in texts.items()},
    }


def _shown(text: PreviewedText) -> dict[str, Any]:
    return {
        "text": text.text,
        "num_tokens": len(text.token_ids),
        "token_ids": text.token_ids[:MAX_SHOWN_TOKENS],
        "tokens": text.tokens[:MAX_SHOWN_TOKENS],
        "scored": text.scored[:MAX_SHOWN_TOKENS],
    }


def _sample(store: ObjectStore, key: str, num_bytes: int) -> Iterator[Row]:
    """Return all rows of a small file; of a large one those within stretches at even distances."""
    if num_bytes <= NUM_STRETCHES * STRETCH_BYTES:
        stretches = [(0, num_bytes)]
    else:
        step = (num_bytes - STRETCH_BYTES) // (NUM_STRETCHES - 1)
        stretches = [(index * step, index * step + STRETCH_BYTES) for index in range(NUM_STRETCHES)]
    for begin, end in stretches:
        lines = b"".join(read_stored(store, key, begin, end)).split(b"\n")
        whole = lines[1:-1] if begin else lines[:-1]
        yield from map(orjson.loads, whole)
