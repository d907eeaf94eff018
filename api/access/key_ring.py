"""Cache of presented keys: the database is asked at most every two seconds, so a revoked key ends within that time."""

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from anyio import CapacityLimiter, to_thread

from core.domain.access import DEFAULT_PROJECT_ID, Scope
from core.services.access import api_keys, secret_files, sign_in_codes
from core.services.access.api_keys import Grant
from core.services.backend import Backend

MAX_AGE_SECONDS = 2.0
MAX_KEPT = 4096
_MAX_QUESTIONS = 8
"""Looks at the database at a time: keys do not wait for threads that do something else."""
_PURPOSE = "preftune dashboard session 3"
BOOTSTRAP = Grant(key_id="bootstrap", project_id=DEFAULT_PROJECT_ID, scope=Scope.OPERATOR)
"""What `PREFTUNE_API_KEY` allows."""
LOCAL = Grant(key_id="local", project_id=DEFAULT_PROJECT_ID, scope=Scope.OPERATOR)
"""What the key file in the data directory allows, as long as no key was ever made."""


class KeyRing:
    """Keys of this process; opens the files of local secrets. Raises SettingsError."""

    def __init__(self, backend: Backend) -> None:
        key = backend.settings.api_key
        self._backend = backend
        self._bootstrap = key.get_secret_value().encode() if key else None
        self._local = None if key else secret_files.local_key(backend.settings).encode()
        self._session_secret = secret_files.session_secret(backend.settings)
        self._limiter = CapacityLimiter(_MAX_QUESTIONS)
        self._lock = threading.Lock()
        self._grants: OrderedDict[str, tuple[float, Grant | None]] = OrderedDict()
        """Rights by the hash of what was presented, also of what is no key; and by id."""
        self._redeemed: dict[str, int] = {}
        """Codes that have signed somebody in, until they end."""
        self._has_stored = False
        self._asked_at = -MAX_AGE_SECONDS

    async def has_keys(self) -> bool:
        """Whether there is, or ever was, a key. Raises Unavailable: unknown is not none."""
        if self._bootstrap is not None or self._has_stored:
            return True
        if time.monotonic() - self._asked_at >= MAX_AGE_SECONDS:
            self._has_stored = await to_thread.run_sync(api_keys.has_key, self._backend, limiter=self._limiter)
            self._asked_at = time.monotonic()
        return self._has_stored

    async def grant(self, shown: bytes) -> Grant | None:
        """Return the rights of a working key, else None. Raises Unavailable."""
        if self._bootstrap is not None and hmac.compare_digest(shown, self._bootstrap):
            return BOOTSTRAP
        if self._local is not None and hmac.compare_digest(shown, self._local):
            return await self._local_grant()
        return await self._ask(hashlib.sha256(shown).hexdigest(), api_keys.authenticate, shown.decode("latin-1"))

    async def grant_of_holder(self, key_id: str) -> Grant | None:
        """Return the rights of a key whose holder has authenticated before. Raises Unavailable."""
        if key_id == BOOTSTRAP.key_id:
            return BOOTSTRAP if self._bootstrap is not None else None
        if key_id == LOCAL.key_id:
            return await self._local_grant()
        return await self._ask(key_id, api_keys.find_live, key_id)

    def session_secret(self, grant: Grant) -> bytes:
        """Secret that signs sessions, not derivable from the database; it changes with the (bootstrap) key."""
        parts = (_PURPOSE, grant.key_id, grant.secret_sha256)
        inner = hmac.digest(self._bootstrap or self._local or b"-", " ".join(parts).encode(), "sha256")
        return hmac.digest(self._session_secret, inner, "sha256")

    async def redeem(self, shown: bytes) -> Grant | None:
        """Grant like `grant`, and also for a one-time sign-in code, in this process. Raises Unavailable."""
        for key, holder in ((self._bootstrap, BOOTSTRAP.key_id), (self._local, LOCAL.key_id)):
            code = sign_in_codes.read(shown.decode("latin-1"), key.decode(), time.time()) if key else None
            if code is not None:
                return await self.grant_of_holder(holder) if self._is_new(*code) else None
        return await self.grant(shown)

    def _is_new(self, number: str, ends_at: int) -> bool:
        now = time.time()
        self._redeemed = {known: end for known, end in self._redeemed.items() if end > now}
        is_new = number not in self._redeemed
        self._redeemed[number] = ends_at
        return is_new

    async def _local_grant(self) -> Grant | None:
        return None if self._local is None or await self.has_keys() else LOCAL

    async def _ask(self, name: str, question: Callable[[Backend, str], Grant | None], text: str) -> Grant | None:
        with self._lock:
            asked_at, grant = self._grants.get(name, (-MAX_AGE_SECONDS, None))
        if time.monotonic() - asked_at < MAX_AGE_SECONDS:
            return grant
        grant = await to_thread.run_sync(question, self._backend, text, limiter=self._limiter)
        with self._lock:
            self._grants[name] = (time.monotonic(), grant)
            self._grants.move_to_end(name)
            while len(self._grants) > MAX_KEPT:
                self._grants.popitem(last=False)
        return grant
