"""Browser sessions: a cookie that proves, for half a day, that its holder has had the key.

The cookie is its date of expiry, a number and the key's id, signed with a secret made from the key. It does not hold
the key, may no more than it, and ends with it. Signing out ends it on the server, for every copy of the cookie.

Under https the cookie is named `__Host-…`, which browsers take from this very host over https only; what was issued so
is taken under that name only, so that neither another port nor a sibling domain can plant a session of its own.
"""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

from api.access.key_ring import KeyRing
from api.http.root_path import root_path
from core.services.access.api_keys import Grant

COOKIE = "preftune_session"
"""Below a root path its words follow, so that two services on one host do not sign each other out."""
_MAX_SHOWN_CHARS = 200
SECURE_COOKIE = f"__Host-{COOKIE}"
LIFE_SECONDS = 12 * 3600
_SECURE, _PLAIN = "s", "p"
_NUM_PARTS = 4


@dataclass(frozen=True)
class BrowserSession:
    grant: Grant
    id: str
    """SHA-256 of what the cookie says, which makes no cookie."""
    seconds: float
    """Time that it lasts yet."""


async def session_grant(ring: KeyRing, headers: Headers, scheme: str) -> Grant | None:
    """Return the rights of the request's cookie; None without a valid session. Raises Unavailable."""
    found = await find_session(ring, headers, scheme)
    return found.grant if found else None


async def find_session(ring: KeyRing, headers: Headers, scheme: str) -> BrowserSession | None:
    """Return the session of the request's cookie, unless it is over or signed out. Raises Unavailable."""
    head, signature = _cookie(headers, scheme)
    parts = head.split(".")
    grant = await ring.grant_of_holder(parts[-1]) if len(parts) == _NUM_PARTS else None
    if grant is None:
        return None
    signed = [hmac.compare_digest(signature, _sign(secret, head)) for secret in ring.session_secrets(grant)]
    if not any(signed):
        return None
    seconds = int(parts[0]) - time.time()
    found = BrowserSession(grant, hashlib.sha256(head.encode()).hexdigest(), seconds)
    return None if seconds <= 0 or await ring.is_session_ended(found.id) else found


def issue(ring: KeyRing, grant: Grant, *, is_secure: bool = False) -> str:
    kind = _SECURE if is_secure else _PLAIN
    head = f"{int(time.time()) + LIFE_SECONDS}.{kind}.{secrets.token_urlsafe(12)}.{grant.key_id}"
    return f"{head}.{_sign(ring.session_secrets(grant)[0], head).decode()}"


def _cookie(headers: Headers, scheme: str) -> tuple[str, bytes]:
    """Return what the cookie says, and its signature; empty where it is not under the name it was issued for."""
    cookies = cookie_parser(headers.get("cookie", ""))
    is_https = is_over_https(headers, scheme)
    plain, secure = _names()
    name, kind = (secure, _SECURE) if secure in cookies or is_https else (plain, _PLAIN)
    head, _, signature = cookies.get(name, "").rpartition(".")
    is_right = head.isascii() and f".{kind}." in head
    return (head, signature.encode("latin-1", "replace")) if is_right else ("", b"")


def _sign(secret: bytes, head: str) -> bytes:
    return hmac.digest(secret, head.encode(), "sha256").hex().encode()


def is_own_origin(headers: Headers) -> bool:
    """Whether a page of this service sent the request, by the origin that browsers send with changes.

    The scheme is left out: behind a proxy that ends TLS the service does not know it.
    """
    try:
        host = urlsplit(headers.get("origin", "")).netloc
    except ValueError:
        return False
    return bool(host) and host.lower() == headers.get("host", "").lower()


def foreign_page_detail(headers: Headers) -> str:
    """Return what a browser whose page is another's is told: both names, as a proxy may have changed one of them."""
    origin, host = (headers.get(name, "none")[:_MAX_SHOWN_CHARS] for name in ("origin", "host"))
    return (
        f"Only this service's own pages may do that: the page's origin is {origin}, the request's Host is {host}. A "
        "proxy in front of the service has to pass on the Host that the browser sends."
    )


def is_over_https(headers: Headers, scheme: str) -> bool:
    """Whether the browser speaks https, as the service, a trusted proxy or the browser's own origin says."""
    return scheme == "https" or (headers.get("origin", "").startswith("https:") and is_own_origin(headers))


def sign_in(response: Response, token: str, *, is_secure: bool) -> None:
    plain, secure = _names()
    name = secure if is_secure else plain
    response.set_cookie(name, token, max_age=LIFE_SECONDS, path="/", httponly=True, samesite="strict", secure=is_secure)


def sign_out(response: Response) -> None:
    plain, secure = _names()
    for name in (plain, secure):
        response.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=name == secure)


def _names() -> tuple[str, str]:
    """Return the cookie's name over http and over https."""
    suffix = root_path().replace("/", "_")
    return COOKIE + suffix, SECURE_COOKIE + suffix
