"""Browsers that are signed in: a cookie which proves, for half a day, that its holder has had the key.

The service stores nothing: the cookie is its date of expiry, signed with a secret made from the API key. It does not
hold the key, and another key ends all sessions. Signing out takes the cookie out of the browser.
"""

import hmac
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

COOKIE = "preftune_session"
LIFE_SECONDS = 12 * 3600
_PURPOSE = b"preftune dashboard session 1"


class Sessions:
    def __init__(self, api_key: bytes) -> None:
        self._api_key = api_key
        self._secret = hmac.digest(api_key, _PURPOSE, "sha256")

    def is_key(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._api_key)

    def issue(self) -> str:
        head = f"{int(time.time()) + LIFE_SECONDS}.{secrets.token_urlsafe(12)}"
        return f"{head}.{self._sign(head)}"

    def has(self, headers: Headers) -> bool:
        """Does the request carry a cookie of a session that lasts?"""
        token = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        head, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode("latin-1", "replace"), self._sign(head).encode()):
            return False
        return int(head.partition(".")[0]) > time.time()

    def _sign(self, head: str) -> str:
        return hmac.digest(self._secret, head.encode(), "sha256").hex()


def is_own_origin(headers: Headers) -> bool:
    """Does a page of this service ask? Browsers name the asking page's site on all that changes something.

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
