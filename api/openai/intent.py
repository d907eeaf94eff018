"""One thing for one intent, although OpenAI's clients send no `Idempotency-Key` when they send a request again.

They count: `x-stainless-retry-count` is 0 for the first sending and grows with each repetition. A repetition of a
request that this service answered, or is at, within the last quarter of an hour gets the first answer.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from api.access.callers import Caller
from api.http.idempotent import Created, CreatingRequest, answer_once
from core.services.access import idempotency
from core.services.backend import Backend

RETRY_COUNT_HEADER = "x-stainless-retry-count"
MAX_AGE_SECONDS = 15 * 60.0


def is_sent_again(request: Request) -> bool:
    count = request.headers.get(RETRY_COUNT_HEADER, "0")
    return count.isascii() and count.isdigit() and int(count[:9]) > 0


def answer_intent(
    backend: Backend,
    request: Request,
    caller: Caller,
    asked: CreatingRequest,
    prefix: str,
    create: Callable[[str | None], Created],
) -> Response:
    """Create, or answer as the first time where the client repeats itself.

    One that sends a key is served as `answer_once` does.
    """
    if asked.key is not None or RETRY_COUNT_HEADER not in request.headers:
        return answer_once(backend, asked, prefix, create)
    told = "\n".join([caller.key_id or "", asked.route, asked.body_sha256])
    key = f"v1:{hashlib.sha256(told.encode()).hexdigest()}"
    if not is_sent_again(request):
        is_free = idempotency.clear_answered(backend, asked.project_id, key)
        # Two equal requests at the same time that are no repetitions are two intents.
        return answer_once(backend, replace(asked, key=key) if is_free else asked, prefix, create)
    idempotency.clear_answered(backend, asked.project_id, key, older_than_seconds=MAX_AGE_SECONDS)
    return answer_once(backend, replace(asked, key=key), prefix, create)
