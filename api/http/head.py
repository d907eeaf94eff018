"""`HEAD` for every address that takes `GET`: the same answer without its body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Enough(Exception):
    """Raised when the head is sent and no body is needed."""


class Head:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            raise _Enough

        try:
            await self._app({**scope, "method": "GET"}, receive, send_head)
        except _Enough:
            return
