"""The client: one attribute per resource, plain JSON objects as the API documents them."""

import os
from types import TracebackType
from typing import Any, Self

from preftune.answers import Arenas, Chat, Feedback
from preftune.datasets import Datasets
from preftune.fine_tuning import FineTuning
from preftune.jobs import Jobs
from preftune.judging import Generations, Judgements, Rounds
from preftune.keys import Keys
from preftune.local_key import find_local_key
from preftune.sweeps import Sweeps
from preftune.transport import Transport, check_address

DEFAULT_URL = "http://127.0.0.1:8000"
MAX_PAGE = 100


class Client:
    """A connection to a Preftune service.

    `base_url` defaults to the environment's `PREFTUNE_URL`, then to a service on this machine; `api_key` defaults to
    `PREFTUNE_API_KEY`, then to the key file of a service on this machine that has no keys. Raises InvalidAddress.
    """

    def __init__(
        self, base_url: str | None = None, *, api_key: str | None = None, timeout_seconds: float = 30.0
    ) -> None:
        url = check_address(base_url or os.environ.get("PREFTUNE_URL") or DEFAULT_URL)
        key = api_key or os.environ.get("PREFTUNE_API_KEY") or find_local_key(url)
        self._transport = Transport(url, key, timeout_seconds)
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport)
        self.sweeps = Sweeps(self._transport)
        self.generations = Generations(self._transport)
        self.judgements = Judgements(self._transport)
        self.rounds = Rounds(self._transport)
        self.chat = Chat(self._transport)
        self.arenas = Arenas(self._transport)
        self.feedback = Feedback(self._transport)
        self.keys = Keys(self._transport)
        self.fine_tuning = FineTuning(self._transport)

    def variants(self) -> list[dict[str, Any]]:
        """Return the preference losses that a job can name."""
        return self._transport.get_list("/variants")

    def models(self, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the models that a job can start from: base models, then tuned policies; at most `limit`, or all."""
        return self._pages("/models", limit)

    def health(self) -> dict[str, Any]:
        """Return the readiness of database, store and broker."""
        return self._transport.get("/health/ready")

    def usage(self) -> dict[str, Any]:
        """What the project stores, by what takes it, and what it may."""
        return self._transport.get("/usage")

    def audit(self, *, limit: int = 100, **where: Any) -> list[dict[str, Any]]:
        """Who did what, newest first: at most `limit` events that match `where`, named as in `GET /audit`."""
        return self._pages("/audit", limit, **where)

    def _pages(self, path: str, limit: int | None, **where: Any) -> list[dict[str, Any]]:
        """Return at most `limit` objects of a list, page by page; all of them with None."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            room = MAX_PAGE if limit is None else min(limit - len(found), MAX_PAGE)
            page = self._transport.get(path, limit=room, cursor=cursor, **where)
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
