"""Path under which a proxy publishes the service: taken off requests, put before the addresses in answers.

Proxies may pass the path on or take it off themselves; both work. Everything below this middleware sees paths as if the
service had a host name of its own.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.settings import SettingsError

_root_path: ContextVar[str] = ContextVar("root_path", default="")


def root_path() -> str:
    """Return the path of the request in work, without a slash at its end; empty at the root."""
    return _root_path.get()


def public_path(path: str) -> str:
    """Return the address of one of our own paths as clients reach it: with the root path before it."""
    return _root_path.get() + path


def check_root_path(root: str, paths: Iterable[str]) -> None:
    """Raise SettingsError for a root path that one of the service's own paths begins with."""
    first = root.split("/")[1]
    if first in {path.split("/")[1] for path in paths}:
        raise SettingsError(
            f"PREFTUNE_ROOT_PATH: /{first} is a path of the service itself; take another one, such as /preftune"
        )


class RootPath:
    """Outermost middleware of a service that does not have its host name for itself."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # before the copy: the server looks into it

        async def send_public(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._complete(MutableHeaders(scope=message))
            await send(message)

        token = _root_path.set(self._root)
        try:
            await self._app(self._without_root(scope), receive, send_public)
        finally:
            _root_path.reset(token)

    def _without_root(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        if path != self._root and not path.startswith(f"{self._root}/"):
            return scope
        inner = path.removeprefix(self._root) or "/"
        raw = scope.get("raw_path") or quote(path).encode()
        prefix = self._root.encode()
        inner_raw = (raw.removeprefix(prefix) or b"/") if raw.startswith(prefix) else quote(inner).encode()
        return {**scope, "path": inner, "raw_path": inner_raw}

    def _complete(self, headers: MutableHeaders) -> None:
        location = headers.get("location", "")
        if location.startswith("/") and not location.startswith("//"):
            headers["location"] = self._root + location
