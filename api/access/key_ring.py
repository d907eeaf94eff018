"""Cache of presented keys: the database is asked at most every two seconds, so a revoked key ends within that time."""

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from anyio import CapacityLimiter, to_thread

from core.domain.access import DEFAULT_PROJECT_ID, Scope
from core.services.access import api_keys, browser_sessions, secret_files, sign_in_codes
from core.services.access.api_keys import Grant
from core.services.backend import Backend

MAX_AGE_SECONDS = 2.0
MAX_KEPT = 4096
_MAX_QUESTIONS = 8
"""Looks at the database at a time: keys do not wait for threads that do something else."""
_PURPOSE = "preftune dashboard session 4"
BOOTSTRAP = Grant(key_id="bootstrap", project_id=DEFAULT_PROJECT_ID, scope=Scope.OPERATOR)
"""What `PREFTUNE_API_KEY` allows."""
LOCAL = Grant(key_id="local", project_id=DEFAULT_PROJECT_ID, scope=Scope.OPERATOR)
"""What the key file in the data directory allows, as long as no key was ever made."""


class KeyRing:
    """Keys of this process; opens the files of local secrets. Raises SettingsError."""

    def __init__(self, backend: Backend) -> None:
        has_bootstrap = backend.settings.api_key is not None
        self._backend = backend
        self._has_bootstrap = has_bootstrap
        self._local = None if has_bootstrap else secret_files.local_key(backend.settings).encode()
        self._session_secret = secret_files.session_secret(backend.settings)
        self._limiter = CapacityLimiter(_MAX_QUESTIONS)
        self._lock = threading.Lock()
        self._grants: OrderedDict[str, tuple[float, Grant | None]] = OrderedDict()
        """Rights by the hash of what was presented, also of what is no key; by id; and of projects."""
        self._ended: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        """Whether sessions were signed out, by their id."""
        self._has_stored = False
        self._asked_at = -MAX_AGE_SECONDS

    async def has_keys(self) -> bool:
        """Whether there is, or ever was, a key. Raises Unavailable: unknown is not none."""
        if self._has_bootstrap or self._has_stored:
            return True
        if time.monotonic() - self._asked_at >= MAX_AGE_SECONDS:
            self._has_stored = await to_thread.run_sync(api_keys.has_key, self._backend, limiter=self._limiter)
            self._asked_at = time.monotonic()
        return self._has_stored

    async def grant(self, shown: bytes) -> Grant | None:
        """Return the rights of a working key, else None. Raises Unavailable."""
        if self._is_bootstrap(shown):
            return BOOTSTRAP
        if self._local is not None and hmac.compare_digest(shown, self._local):
            return await self._local_grant()
        return await self._ask(hashlib.sha256(shown).hexdigest(), api_keys.authenticate, shown.decode("latin-1"))

    async def grant_of_holder(self, key_id: str) -> Grant | None:
        """Return the rights of a key whose holder has authenticated before. Raises Unavailable."""
        if key_id == BOOTSTRAP.key_id:
            return BOOTSTRAP if self._has_bootstrap else None
        if key_id == LOCAL.key_id:
            return await self._local_grant()
        return await self._ask(key_id, api_keys.find_live, key_id)

    async def grant_of_user(self, user: str, project_id: str, scope: Scope) -> Grant | None:
        """Return the rights of a user that a trusted proxy names; None for an unknown project. Raises Unavailable."""
        found = await self._ask(f"project {project_id}", api_keys.find_project_grant, project_id)
        return replace(found, key_id=f"user:{user}", scope=scope, user=user) if found else None

    async def is_session_ended(self, session_id: str) -> bool:
        """Whether the session was signed out, as of two seconds ago. Raises Unavailable."""
        with self._lock:
            asked_at, is_ended = self._ended.get(session_id, (-MAX_AGE_SECONDS, False))
        if is_ended or time.monotonic() - asked_at < MAX_AGE_SECONDS:
            return is_ended
        question = partial(browser_sessions.is_ended, self._backend, session_id)
        is_ended = await to_thread.run_sync(question, limiter=self._limiter)
        self.note_session(session_id, is_ended=is_ended)
        return is_ended

    def note_session(self, session_id: str, *, is_ended: bool) -> None:
        with self._lock:
            self._ended[session_id] = (time.monotonic(), is_ended)
            self._ended.move_to_end(session_id)
            while len(self._ended) > MAX_KEPT:
                self._ended.popitem(last=False)

    def is_known(self, shown: bytes) -> bool:
        """Whether the key worked when it was looked at last; asks nobody."""
        if self._is_bootstrap(shown) or (self._local is not None and hmac.compare_digest(shown, self._local)):
            return True
        with self._lock:
            return self._grants.get(hashlib.sha256(shown).hexdigest(), (0.0, None))[1] is not None

    def session_secrets(self, grant: Grant) -> list[bytes]:
        """Secrets that sign sessions, the first new ones; not derivable from the database, and changed with the key."""
        keys = {BOOTSTRAP.key_id: self._bootstrap, LOCAL.key_id: [self._local or b"-"]}.get(grant.key_id, [b"-"])
        parts = " ".join((_PURPOSE, grant.key_id, grant.secret_sha256)).encode()
        return [hmac.digest(self._session_secret, hmac.digest(key, parts, "sha256"), "sha256") for key in keys]

    @property
    def _bootstrap(self) -> list[bytes]:
        """Bootstrap keys in force: while one is replaced in its file, two."""
        return [key.encode() for key in self._backend.settings.bootstrap_keys] if self._has_bootstrap else []

    def _is_bootstrap(self, shown: bytes) -> bool:
        matches = [hmac.compare_digest(shown, key) for key in self._bootstrap]
        return any(matches)

    async def redeem(self, shown: bytes) -> Grant | None:
        """Grant like `grant`, and also for a one-time sign-in code. Raises Unavailable."""
        keys = [(key, BOOTSTRAP.key_id) for key in self._bootstrap]
        keys += [(self._local, LOCAL.key_id)] if self._local else []
        for key, holder in keys:
            code = sign_in_codes.read(shown.decode("latin-1"), key.decode(), time.time())
            if code is not None:
                return await self.grant_of_holder(holder) if await self._is_new(*code) else None
        return await self.grant(shown)

    async def _is_new(self, number: str, ends_at: int) -> bool:
        """Whether no API process has taken this code before; from now on one has. Raises Unavailable."""
        work = partial(browser_sessions.take_code, self._backend, number, ends_at - time.time())
        return await to_thread.run_sync(work, limiter=self._limiter)

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
