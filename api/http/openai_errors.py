"""Errors under `/v1`, as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`.

The clients send again what is answered 408, 409, 429 or 5xx; `x-should-retry: false` keeps them from repeating what
cannot come out otherwise.
"""

from collections.abc import Sequence
from typing import Any

from core.domain.errors import FieldError

PATH_PREFIX = "/v1/"
RETRY_HEADER = "x-should-retry"
_CODES = {
    "api-key-missing": "invalid_api_key",
    "api-key-invalid": "invalid_api_key",
    "rate-limited": "rate_limit_exceeded",
    "quota-exceeded": "exceeded_quota",
    "storage-quota-exceeded": "exceeded_quota",
}
"""Ours -> OpenAI's, where user code is known to compare them; all others are ours with `_`."""
_CODES_OF_PARAMS: dict[tuple[str, str | None], str] = {
    ("invalid-request", "model"): "model_not_found",
    ("invalid-request", "training_file"): "invalid_training_file",
    ("invalid-request", "validation_file"): "invalid_validation_file",
}
_TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}
_PARAMS = {401: "Authorization", 403: "Authorization", 404: "path", 405: "path", 429: "Authorization"}
IN_USE_SECONDS = "30"
"""Half of the time for which a request whose process died holds its key."""
_PASSING_CONFLICTS = frozenset({"idempotency-key-in-use", "file-not-processed"})
"""Conflicts that time settles."""


def is_openai_path(path: str) -> bool:
    return path == "/v1" or path.startswith(PATH_PREFIX)


def openai_status(status: int) -> int:
    """Return the status under `/v1`: OpenAI answers 400 where this service says 422."""
    return 400 if status == 422 else status


def openai_document(
    status: int, code: str, message: str, errors: Sequence[FieldError], request_id: str | None
) -> dict[str, Any]:
    """Return the envelope. `param` names the first faulty field, or the part of the request that is refused."""
    if errors and message.startswith(errors[0].pointer):
        message = "; ".join(f"{_param([error])}: {error.detail}" for error in errors)
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return {
        "error": {
            "message": message,
            "type": kind,
            "param": _param(errors) or _PARAMS.get(status, "request"),
            "code": _CODES_OF_PARAMS.get((code, _param(errors))) or _CODES.get(code, code.replace("-", "_")),
            "errors": [{"param": _param([error]), "message": error.detail} for error in errors],
            "request_id": request_id,
        }
    }


def openai_headers(status: int, code: str) -> dict[str, str]:
    """Return the header that keeps the clients from repeating what they would repeat in vain."""
    if code == "idempotency-key-in-use":
        return {"Retry-After": IN_USE_SECONDS}  # the clients wait so long, and then get the first answer
    is_lasting = status == 507 or (status == 409 and code not in _PASSING_CONFLICTS)
    return {RETRY_HEADER: "false"} if is_lasting else {}


def _param(errors: Sequence[FieldError]) -> str | None:
    """The pointer of the first error with dots, as OpenAI writes it: `method.dpo.hyperparameters.beta`."""
    for error in errors:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in error.pointer.split("/")[1:]]
        if parts:
            return ".".join(parts)
    return None
