"""The keys that requests show: each is asked of the database at most every two seconds, so a revoked one ends then."""

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from anyio import to_thread

from core.domain.access import DEFAULT_PROJECT_ID, Scope
from core.domain.errors import Unavailable
from core.services.access import api_keys
from core.services.access.api_keys import Grant
from core.services.backend import Backend

MAX_AGE_SECONDS = 2.0
MAX_KEPT = 4096
_PURPOSE = "preftune dashboard session 2"
BOOTSTRAP = Grant(key_id="bootstrap", project_id=DEFAULT_PROJECT_ID, scope=Scope.ADMIN)
"""What `PREFTUNE_API_KEY` allows."""


class KeyRing:
    def __init__(self, backend: Backend) -> None:
        key = backend.settings.api_key
        self._backend = backend
        self._bootstrap = key.get_secret_value().encode() if key else None
        self._lock = threading.Lock()
        self._grants: OrderedDict[str, tuple[float, Grant | None]] = OrderedDict()
        """By the hash of what was shown, also of what is no key; and by id."""
        self._has_stored = False
        self._asked_at = -MAX_AGE_SECONDS

    async def has_keys(self) -> bool:
        """Is there any key at all? While the database is away: as it was."""
        if self._bootstrap is not None:
            return True
        if time.monotonic() - self._asked_at >= MAX_AGE_SECONDS:
            await to_thread.run_sync(self._look_for_keys)
        return self._has_stored

    async def grant(self, shown: bytes) -> Grant | None:
        """None: not a key that works. Raises Unavailable."""
        if self._bootstrap is not None and hmac.compare_digest(shown, self._bootstrap):
            return BOOTSTRAP
        return await self._ask(hashlib.sha256(shown).hexdigest(), api_keys.authenticate, shown.decode("latin-1"))

    async def grant_of_holder(self, key_id: str) -> Grant | None:
        """For whoever has proved before to have the key of that id. Raises Unavailable."""
        if key_id == BOOTSTRAP.key_id:
            return BOOTSTRAP if self._bootstrap is not None else None
        return await self._ask(key_id, api_keys.find_live, key_id)

    def session_secret(self, grant: Grant) -> bytes:
        """Made from the key, so that another key, or another bootstrap key, ends the sessions of this one."""
        return hmac.digest(
            self._bootstrap or b"-", f"{_PURPOSE} {grant.key_id} {grant.secret_sha256}".encode(), "sha256"
        )

    async def _ask(self, name: str, question: Callable[[Backend, str], Grant | None], text: str) -> Grant | None:
        with self._lock:
            asked_at, grant = self._grants.get(name, (-MAX_AGE_SECONDS, None))
        if time.monotonic() - asked_at < MAX_AGE_SECONDS:
            return grant
        grant = await to_thread.run_sync(question, self._backend, text)
        with self._lock:
            self._grants[name] = (time.monotonic(), grant)
            self._grants.move_to_end(name)
            while len(self._grants) > MAX_KEPT:
                self._grants.popitem(last=False)
        return grant

    def _look_for_keys(self) -> None:
        with suppress(Unavailable):
            self._has_stored = api_keys.has_live_key(self._backend)
        self._asked_at = time.monotonic()
