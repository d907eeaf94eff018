"""API keys: shown once at creation, stored as a hash, rotated with a grace time for the old key, revoked.

A key reads `pt_<26 characters: its id>_<64 hexadecimal digits: its secret>`.
"""

import hashlib
import hmac
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import access
from core.database.tables.access import ApiKey
from core.domain.access import Scope
from core.domain.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unavailable
from core.services.access import audit
from core.services.access.projects import require_project
from core.services.backend import Backend
from core.services.ids import make_id, new_suffix
from core.services.pages import page_of, read_cursor
from core.services.transactions import reads, writes
from core.services.views import Page, from_row

DEFAULT_GRACE_SECONDS = 24 * 3600.0
MAX_NAME_CHARS = 100
_TOKEN = re.compile(r"pt_([0-9a-z]{26})_([0-9a-f]{64})")
WARNED_SECONDS = 7 * 24 * 3600.0
_USE_NOTED_SECONDS = 60.0
_PREFIX = "key"


class KeyNotFound(NotFound):
    code = "key-not-found"
    title = "There is no such key"


class KeyOutOfReach(Forbidden):
    code = "key-out-of-reach"
    title = "Such a key cannot be made with this one"


class KeyNotLive(Conflict):
    code = "key-not-live"
    title = "The key is revoked or expired"


@dataclass(frozen=True, kw_only=True)
class KeyView:
    id: str
    project_id: str
    name: str
    scope: Scope
    keeps_answers: bool
    is_live: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewKey:
    key: KeyView
    token: str
    """Shown now and never again."""


@dataclass(frozen=True)
class _Token:
    """Parts of a key being created; fixed before the transaction, which may run twice."""

    suffix: str
    secret: str

    @classmethod
    def new(cls, suffix: str | None = None) -> Self:
        return cls(suffix or new_suffix(), secrets.token_hex(32))

    @property
    def key_id(self) -> str:
        return make_id(_PREFIX, self.suffix)

    @property
    def secret_sha256(self) -> str:
        return _hash(self.secret)

    def __str__(self) -> str:
        return f"pt_{self.suffix}_{self.secret}"

    def row(self, project_id: str, name: str, scope: Scope) -> ApiKey:
        key = ApiKey(
            id=self.key_id,
            project_id=project_id,
            name=name,
            secret_sha256=self.secret_sha256,
            created_at=database_now(),
        )
        key.set_scope(scope)
        return key


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Rights of a presented key."""

    key_id: str
    project_id: str
    scope: Scope
    requests_per_minute: int | None = None
    max_upload_bytes: int | None = None
    keeps_answers: bool = False
    """Whether served answers may be kept where a request asks for it."""
    secret_sha256: str = field(default="", repr=False)
    user: str | None = None
    """Name that a trusted proxy vouches for, instead of a key."""


@dataclass(frozen=True, kw_only=True)
class KeyReach:
    """Keys that somebody may see, make and end: an admin's are those of one project, without its operators."""

    project_id: str | None = None
    with_operators: bool = True

    def includes(self, key: ApiKey) -> bool:
        is_ours = self.project_id in (None, key.project_id)
        return is_ours and (self.with_operators or key.scope is not Scope.OPERATOR)

    def require(self, project_id: str, scope: Scope) -> None:
        """Check that such a key may be made. Raises KeyOutOfReach."""
        if self.project_id not in (None, project_id):
            raise KeyOutOfReach(f"With this key, keys are made for the project {self.project_id} only.")
        if scope is Scope.OPERATOR and not self.with_operators:
            raise KeyOutOfReach("Only an operator makes keys of the scope operator.")


EVERYWHERE = KeyReach()


def create(
    backend: Backend,
    project_id: str,
    name: str,
    scope: Scope,
    *,
    lifetime_seconds: float | None = None,
    keeps_answers: bool = False,
    reach: KeyReach = EVERYWHERE,
    key_suffix: str | None = None,
) -> NewKey:
    """Create a key; `key_suffix` fixes its id before. Raises ProjectNotFound, InvalidRequest, KeyOutOfReach."""
    reach.require(project_id, scope)
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InvalidRequest(f"A key's name has 1 to {MAX_NAME_CHARS} printable characters.")
    if lifetime_seconds is not None and lifetime_seconds <= 0:
        raise InvalidRequest("A key lives for a positive time.")
    token = _Token.new(key_suffix)

    def work(session: Session) -> KeyView:
        require_project(session, project_id)
        key = access.find_key(session, token.key_id)  # of a commit whose answer was lost
        if key is None:
            key = token.row(project_id, name, scope)
            key.expires_at = database_after(lifetime_seconds) if lifetime_seconds else None
            key.keeps_answers = keeps_answers
            _store(session, key)
            audit.note(session, project_id, "key.create", key.id, scope=scope.value, name=name)
        else:
            key.secret_sha256 = token.secret_sha256  # nobody has seen another one: its answer was never given
        return _view(session, key)

    return NewKey(key=backend.database.write(work), token=str(token))


@reads
def list_keys(session: Session, project_id: str | None = None) -> list[KeyView]:
    """Return the keys, oldest first, dead ones too."""
    return [_view(session, key) for key in access.list_keys(session, project_id)]


@reads
def list_page(session: Session, reach: KeyReach, *, limit: int = 20, cursor: str | None = None) -> Page[KeyView]:
    """Return the keys within reach, newest first, dead ones too."""
    before = read_cursor(cursor)
    rows = access.list_keys_before(
        session, reach.project_id, with_operators=reach.with_operators, before=before, limit=limit + 1
    )
    return page_of(rows, limit, [_view(session, row) for row in rows[:limit]])


@reads
def get(session: Session, key_id: str, reach: KeyReach = EVERYWHERE) -> KeyView:
    """Return the key. Raises KeyNotFound."""
    return _view(session, _within(reach, access.find_key(session, key_id), key_id))


def rotate(
    backend: Backend,
    key_id: str,
    *,
    grace_seconds: float = DEFAULT_GRACE_SECONDS,
    reach: KeyReach = EVERYWHERE,
    key_suffix: str | None = None,
) -> NewKey:
    """Create a like key; the old one works during the grace time. Raises KeyNotFound, KeyNotLive."""
    token = _Token.new(key_suffix)

    def work(session: Session) -> KeyView:
        old = _lock(session, key_id, reach)
        key = access.find_key(session, token.key_id)
        if key is not None:
            key.secret_sha256 = token.secret_sha256
            return _view(session, key)
        if not access.is_live(session, key_id):
            raise KeyNotLive(f"{key_id} is revoked or expired; create a new key.")
        key = token.row(old.project_id, old.name, old.scope)
        key.expires_at = old.expires_at
        key.keeps_answers = old.keeps_answers
        _store(session, key)
        access.expire_within(session, key_id, max(0.0, grace_seconds))
        audit.note(session, key.project_id, "key.rotate", key_id, new_key_id=key.id)
        return _view(session, key)

    return NewKey(key=backend.database.write(work), token=str(token))


@writes
def revoke(session: Session, key_id: str, reach: KeyReach = EVERYWHERE) -> KeyView:
    """Revoke a key; idempotent. Raises KeyNotFound."""
    key = _lock(session, key_id, reach)
    if key.revoked_at is None:
        key.revoked_at = database_now()
        session.flush()
        audit.note(session, key.project_id, "key.revoke", key_id)
        session.refresh(key)
    return _view(session, key)


def authenticate(backend: Backend, token: str) -> Grant | None:
    """Return the rights of a key, or None for one that is unknown, revoked or expired. Raises Unavailable."""
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        return None
    key_id, digest = make_id(_PREFIX, parts[1]), _hash(parts[2])
    grant, is_unnoted = _find_grant(backend, key_id, digest)
    if is_unnoted:
        with suppress(Unavailable):  # the key is good all the same
            backend.database.write(lambda session: access.note_use(session, key_id))
    return grant


@reads
def _find_grant(session: Session, key_id: str, digest: str) -> tuple[Grant | None, bool]:
    key = access.find_key(session, key_id)
    # Compared also when there is no such key, so that both take the same time.
    is_secret = hmac.compare_digest(digest, key.secret_sha256 if key else _hash(""))
    if key is None or not is_secret or not access.is_live(session, key_id):
        return None, False
    return grant_of(session, key), access.is_use_unnoted(session, key_id, _USE_NOTED_SECONDS)


def grant_of(session: Session, key: ApiKey) -> Grant:
    limits = access.find_limits(session, key.project_id)
    return Grant(
        key_id=key.id,
        project_id=key.project_id,
        scope=key.scope,
        requests_per_minute=limits.max_requests_per_minute if limits else None,
        max_upload_bytes=limits.max_upload_bytes if limits else None,
        keeps_answers=bool(key.keeps_answers),
        secret_sha256=key.secret_sha256,
    )


@reads
def find_live(session: Session, key_id: str) -> Grant | None:
    """Return the rights of a key whose holder has authenticated before. Raises Unavailable."""
    key = access.find_key(session, key_id)
    return grant_of(session, key) if key is not None and access.is_live(session, key_id) else None


@reads
def find_project_grant(session: Session, project_id: str) -> Grant | None:
    """Return what everybody in the project is held to, with the scope read; None for an unknown project."""
    if access.find_project(session, project_id) is None:
        return None
    limits = access.find_limits(session, project_id)
    return Grant(
        key_id="",
        project_id=project_id,
        scope=Scope.READ,
        requests_per_minute=limits.max_requests_per_minute if limits else None,
        max_upload_bytes=limits.max_upload_bytes if limits else None,
    )


def has_key(backend: Backend) -> bool:
    """Whether a key was ever created; dead ones count, so that the service stays closed. Raises Unavailable."""
    return backend.database.read(access.has_key)


def expiry_warning(backend: Backend) -> str | None:
    """Return a warning for the operator when all keys have ended or end within a week. Raises Unavailable."""
    has_any, is_live, is_lasting = _how_keys_last(backend)
    if is_lasting or not has_any:
        return None
    when = "within a week" if is_live else "already"
    return f"the last API key ends {when}; no request is served after it: create one with `preftune keys create`"


@reads
def _how_keys_last(session: Session) -> tuple[bool, bool, bool]:
    return access.has_key(session), access.lasts(session, 0), access.lasts(session, WARNED_SECONDS)


def _store(session: Session, key: ApiKey) -> None:
    session.add(key)
    session.flush()
    session.refresh(key)  # the database's times


def _lock(session: Session, key_id: str, reach: KeyReach) -> ApiKey:
    return _within(reach, access.lock_key(session, key_id), key_id)


def _within(reach: KeyReach, key: ApiKey | None, key_id: str) -> ApiKey:
    if key is None or not reach.includes(key):
        raise KeyNotFound(f"There is no key {key_id}; `preftune keys list` shows all.")
    return key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _view(session: Session, key: ApiKey) -> KeyView:
    return from_row(KeyView, key, keeps_answers=bool(key.keeps_answers), is_live=access.is_live(session, key.id))
