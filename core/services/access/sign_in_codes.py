"""One-time sign-in codes for browsers: made on the service's machine from its local key, valid for minutes."""

import hmac
import re
import secrets

LIFE_SECONDS = 600
_PURPOSE = b"preftune sign-in code 1"
_CODE = re.compile(r"pt_once_(\d{1,12})_([0-9a-f]{32})_([0-9a-f]{64})")


def make(key: str, now: float) -> str:
    head = f"{int(now) + LIFE_SECONDS}_{secrets.token_hex(16)}"
    return f"pt_once_{head}_{_sign(key, head)}"


def read(code: str, key: str, now: float) -> tuple[str, int] | None:
    """Return the code's number and end (seconds since the epoch); None for a foreign or expired code."""
    parts = _CODE.fullmatch(code)
    if parts is None or not hmac.compare_digest(parts[3], _sign(key, f"{parts[1]}_{parts[2]}")):
        return None
    ends_at = int(parts[1])
    return (parts[2], ends_at) if now < ends_at <= now + LIFE_SECONDS + 1 else None


def _sign(key: str, head: str) -> str:
    inner = hmac.digest(key.encode(), _PURPOSE, "sha256")
    return hmac.digest(inner, head.encode(), "sha256").hex()
