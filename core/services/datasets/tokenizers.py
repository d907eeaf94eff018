"""Tokenizers of base models, opened by the API to show how a model sees rows."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.base_models.directory import get_base_model
from core.domain.errors import DomainError, FieldError, InvalidRequest
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.tokenization.errors import UnusableChatTemplate
from core.tokenization.pair_tokenizer import PairTokenizer

_MAX_LOADED = 6


class SharedTokenizer:
    """A tokenizer with its lock, since it serves one thread at a time."""

    def __init__(self, folder: Path, template_kwargs: Mapping[str, Any], now: datetime | None = None) -> None:
        self.tokenizer = PairTokenizer.open(folder, now=now, template_kwargs=template_kwargs)
        self.lock = threading.Lock()
        self.statistics: OrderedDict[tuple[str, int, int], Any] = OrderedDict()
        """Those told last, by key and size of the rows and `max_length`."""


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    shared: SharedTokenizer
    context_length: int | None


def open_tokenizer(
    backend: Backend, project_id: str, name: str, template_kwargs: Mapping[str, Any] | None = None
) -> OpenedModel:
    """Open the tokenizer of a base model's folder; a tuned policy has that of its base model.

    Raises:
        InvalidRequest: there is no such base model, or its template cannot be given these variables.
    """
    try:
        if starting_points.is_job_reference(name):
            point = backend.database.read(lambda session: starting_points.find_policy(session, project_id, name))
            name = str(point.facts["name"])
        model = get_base_model(backend.settings.models_dir, name)
    except DomainError as error:
        if error.kind == "unavailable":
            raise
        raise InvalidRequest(
            f"/base_model: {error.detail}", errors=[FieldError("/base_model", error.detail)]
        ) from error
    try:
        shared = load_shared(model.directory, template_kwargs)
    except UnusableChatTemplate as error:
        if template_kwargs:
            error.errors = [FieldError("/chat_template_kwargs", error.detail)]
        raise
    return OpenedModel(shared=shared, context_length=model.context_length)


def load_shared(
    folder: Path, template_kwargs: Mapping[str, Any] | None = None, now: datetime | None = None
) -> SharedTokenizer:
    """Return the tokenizer of a folder, those used last from memory; `now` is the time that its template sees.

    Raises UnusableTokenizer, UnusableChatTemplate.
    """
    modified_ns = (folder / "tokenizer.json").stat().st_mtime_ns
    return _load(folder, modified_ns, json.dumps(template_kwargs or {}, sort_keys=True), now)


@lru_cache(_MAX_LOADED)
def _load(folder: Path, modified_ns: int, template_kwargs: str, now: datetime | None) -> SharedTokenizer:
    """Load and cache a tokenizer, which takes a second; `modified_ns` distinguishes a replaced file."""
    return SharedTokenizer(folder, json.loads(template_kwargs), now)
