"""What a base model will see of a data set: rows as rendered and encoded, and how long they are in tokens."""

import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import orjson

from core.base_models.directory import get_base_model
from core.datasets.rows.tally import summarise
from core.domain.errors import DomainError, FieldError, InvalidRequest
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.datasets import datasets
from core.services.views import Page, TokenStatisticsView
from core.storage import keys
from core.storage.object_store import ObjectStore
from core.tokenization.errors import UnencodableRow
from core.tokenization.pair_tokenizer import PairTokenizer
from core.tokenization.preview import PreviewedText, Row, count_tokens, preview_row

MAX_TEXT_BYTES = 512 * 1024
"""Of the rows of one page of previews, once there is one."""
MAX_SHOWN_TOKENS = 4096
"""Of one text."""
NUM_STRETCHES = 16
STRETCH_BYTES = 64 * 1024
"""Statistics read so many stretches of the rows; a smaller file is read whole."""
_MAX_LOADED = 2


class _SharedTokenizer:
    """A tokenizer is for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = PairTokenizer.open(folder)
        self.lock = threading.Lock()


def preview_rows(
    backend: Backend,
    project_id: str,
    dataset_id: str,
    base_model: str,
    *,
    max_length: int,
    limit: int = 20,
    cursor: str | None = None,
) -> Page[dict[str, Any]]:
    """Normalised rows, each with `preview`. Raises InvalidRequest where there is no such base model."""
    shared = _find_tokenizer(backend, project_id, base_model)
    page = datasets.list_rows(backend, project_id, dataset_id, limit=limit, cursor=cursor, max_bytes=MAX_TEXT_BYTES)
    with shared.lock:
        data = [{**row, "preview": _preview(shared.tokenizer, cast(Row, row), max_length)} for row in page.data]
    return Page(data=data, next_cursor=page.next_cursor)


def token_statistics(
    backend: Backend, project_id: str, dataset_id: str, base_model: str, *, max_length: int
) -> TokenStatisticsView:
    """Lengths in tokens, and the share of rows that a job with `max_length` sets aside."""
    shared = _find_tokenizer(backend, project_id, base_model)
    datasets.require_ready(backend, project_id, dataset_id)
    key = keys.dataset_rows(project_id, dataset_id)
    num_bytes = backend.store.stat(key).num_bytes
    lengths: dict[str, Counter[int]] = {}
    num_rows = num_over = num_unencodable = 0
    with shared.lock:
        for row in _sample(backend.store, key, num_bytes):
            num_rows += 1
            try:
                found = count_tokens(shared.tokenizer, row)
            except UnencodableRow:
                num_unencodable += 1
                continue
            num_over += found["row"] > max_length
            for name, length in found.items():
                lengths.setdefault(name, Counter())[length] += 1
    return TokenStatisticsView(
        base_model=base_model,
        max_length=max_length,
        is_exact=num_bytes <= NUM_STRETCHES * STRETCH_BYTES,
        num_rows=num_rows,
        num_over_max_length=num_over,
        num_unencodable=num_unencodable,
        share_over_max_length=round(num_over / num_rows, 4) if num_rows else 0.0,
        lengths={name: dict(summarise(counts)) for name, counts in lengths.items()},
    )


def _preview(tokenizer: PairTokenizer, row: Row, max_length: int) -> dict[str, Any]:
    try:
        preview = preview_row(tokenizer, row)
    except UnencodableRow as error:
        return {"num_tokens": None, "fits": False, "problem": error.detail, "texts": {}}
    texts = {"prompt": preview.prompt, **preview.responses}
    return {
        "num_tokens": preview.num_tokens,
        "fits": preview.num_tokens <= max_length,
        "problem": None,
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
    """All rows of a small file; of a large one those that lie whole in stretches at even distances."""
    if num_bytes <= NUM_STRETCHES * STRETCH_BYTES:
        stretches = [(0, num_bytes)]
    else:
        step = (num_bytes - STRETCH_BYTES) // (NUM_STRETCHES - 1)
        stretches = [(index * step, index * step + STRETCH_BYTES) for index in range(NUM_STRETCHES)]
    for begin, end in stretches:
        lines = b"".join(store.read(key, begin, end)).split(b"\n")
        whole = lines[1:-1] if begin else lines[:-1]
        yield from map(orjson.loads, whole)


def _find_tokenizer(backend: Backend, project_id: str, name: str) -> _SharedTokenizer:
    """Of a base model's folder; a tuned policy has that of the base model at its root."""
    try:
        if starting_points.is_job_reference(name):
            point = backend.database.read(lambda session: starting_points.find_policy(session, project_id, name))
            name = str(point.facts["name"])
        folder = get_base_model(backend.settings.models_dir, name).directory
    except DomainError as error:
        if error.kind == "unavailable":
            raise
        raise InvalidRequest(
            f"/base_model: {error.detail}", errors=[FieldError("/base_model", error.detail)]
        ) from error
    return _load(folder, (folder / "tokenizer.json").stat().st_mtime_ns)


@lru_cache(_MAX_LOADED)
def _load(folder: Path, modified_ns: int) -> _SharedTokenizer:
    """Kept, as it takes a second to load; `modified_ns` tells a replaced file from the one that is kept."""
    return _SharedTokenizer(folder)
