"""What a dataset holds and the chat template of a base model does not write: tool definitions and calls."""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, cast

import orjson

from core.base_models.directory import get_base_model
from core.domain.errors import DomainError, InvalidRequest
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.datasets import datasets
from core.storage import keys
from core.storage.object_store import ObjectStore, read_stored
from core.tokenization.chat_template import ChatTemplate
from core.tokenization.model_files import read_tokenizer_files

_MARKS: Final = {"tools": b'"tools":[', "tool_calls": b'"tool_calls":['}
"""Features of a template -> how a stored row that needs one shows it. A text holds no bare quotation mark."""
MAX_ROWS, MAX_SECONDS = 100_000, 3.0
"""How far a dataset is searched inside a request where its check did not note its tools."""
_TITLES: Final = {"tools": "tool definitions (`tools`)", "tool_calls": "calls of tools (`tool_calls`)"}


def tools_fault(backend: Backend, project_id: str, base_model: str, dataset_id: str) -> str | None:
    """Return what of the dataset's tools the base model's template leaves out, with the first line that has it.

    None where nothing is left out, and where this machine has no such base model: its worker then says it. Of a dataset
    that an earlier version checked only the beginning is looked at; rows behind it are set aside by the job itself.
    """
    written = _written(backend, project_id, base_model)
    if written is None or all(written.values()):
        return None
    dataset = datasets.resolve(backend, project_id, dataset_id)
    lines = dataset.report["statistics"].get("first_lines")
    if lines is None:
        key = keys.dataset_rows(project_id, dataset.id)
        lines = _first_lines(cast(Any, backend.store), key, backend.store.stat(key).num_bytes)
    lost = {feature: line for feature, line in lines.items() if not written[feature]}
    if not lost:
        return None
    feature, line = min(lost.items(), key=lambda item: item[1])
    return (
        f"line {line} of {dataset_id} holds {_TITLES[feature]}, which the chat template of {base_model} does not "
        "write; name a model whose template does, or send the rows without them"
    )


def _written(backend: Backend, project_id: str, base_model: str) -> dict[str, bool] | None:
    """Tell for each feature whether the template writes it; None for a model that cannot be asked here."""
    try:
        name = base_model
        if starting_points.is_job_reference(name):
            point = backend.database.read(lambda session: starting_points.find_policy(session, project_id, name))
            name = str(point.facts["name"])
        files = read_tokenizer_files(get_base_model(backend.settings.models_dir, name).directory)
        if not files.chat_template:
            return dict.fromkeys(_MARKS, False)
        template = ChatTemplate(files.chat_template, files.named_tokens, datetime.now)
    except (DomainError, InvalidRequest) as error:
        if error.kind == "unavailable":
            raise
        return None
    return {feature: template.features.writes(feature) for feature in _MARKS}


@lru_cache(256)
def _first_lines(store: ObjectStore, key: str, num_bytes: int) -> Mapping[str, int]:
    """Return the first line of the file with each feature, as far as the bounds let it look.

    Rows of a dataset never change; `num_bytes` tells them apart from those of a deleted one that had the same id.
    """
    found: dict[str, int] = {}
    rest, num_rows, deadline = b"", 0, time.monotonic() + MAX_SECONDS
    for chunk in read_stored(store, key, 0):
        *lines, rest = (rest + chunk).split(b"\n")
        for row in _marked_rows(lines):
            found = {feature: int(row["line"]) for feature in _MARKS if _has(row, feature)} | found
        num_rows += len(lines)
        if len(found) == len(_MARKS) or num_rows >= MAX_ROWS or time.monotonic() >= deadline:
            break
    return found


def _marked_rows(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    """Parse the rows that may need a feature, which are few where the template does not write them."""
    return (orjson.loads(line) for line in lines if any(mark in line for mark in _MARKS.values()))


def _has(row: dict[str, Any], feature: str) -> bool:
    if feature == "tools":
        return bool(row.get("tools"))
    texts = [value for name in ("prompt", "chosen", "rejected", "response") if isinstance(value := row.get(name), list)]
    return any(message.get("tool_calls") for messages in texts for message in messages)
