"""Browser sessions: a cookie that proves, for half a day, that its holder has had the key.

The service stores nothing: the cookie is its date of expiry and the key's id, signed with a secret made from the key.
It does not hold the key, may no more than it, and ends with it. Signing out takes the cookie out of the browser.
"""

import hmac
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

from api.access.key_ring import KeyRing
from core.services.access.api_keys import Grant

COOKIE = "preftune_session"
LIFE_SECONDS = 12 * 3600


async def session_grant(ring: KeyRing, headers: Headers) -> Grant | None:
    """Return the rights of the request's cookie; None without a valid session. Raises Unavailable."""
    token = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    head, _, signature = token.rpartition(".")
    grant = await ring.grant_of_holder(head.rpartition(".")[2]) if head else None
    if grant is None:
        return None
    expected = _sign(ring, grant, head).encode()
    if not hmac.compare_digest(signature.encode("latin-1", "replace"), expected):
        return None
    return grant if int(head.partition(".")[0]) > time.time() else None


def issue(ring: KeyRing, grant: Grant) -> str:
    head = f"{int(time.time()) + LIFE_SECONDS}.{secrets.token_urlsafe(12)}.{grant.key_id}"
    return f"{head}.{_sign(ring, grant, head)}"


def _sign(ring: KeyRing, grant: Grant, head: str) -> str:
    return hmac.digest(ring.session_secret(grant), head.encode("latin-1", "replace"), "sha256").hex()


def is_own_origin(headers: Headers) -> bool:
    """Whether a page of this service sent the request, by the origin that browsers send with changes.

    The scheme is left out: behind a proxy that ends TLS the service does not know it.
    """
    try:
        host = urlsplit(headers.get("origin", "")).netloc
    except ValueError:
        return False
    return bool(host) and host.lower() == headers.get("host", "").lower()


def sign_in(response: Response, token: str, headers: Headers) -> None:
    is_secure = headers.get("origin", "").startswith("https:")
    response.set_cookie(
        COOKIE, token, max_age=LIFE_SECONDS, path="/", httponly=True, samesite="strict", secure=is_secure
    )


def sign_out(response: Response) -> None:
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
