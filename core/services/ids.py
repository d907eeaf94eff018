"""Ids: a prefix that names the kind, and 26 characters that sort by creation time."""

import hashlib
import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0


def new_suffix() -> str:
    """Return 48 bits of milliseconds and 80 random bits; grows within a process, even inside one millisecond."""
    global _last
    with _lock:
        fresh = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        _last = fresh if fresh >> _RANDOM_BITS > _last >> _RANDOM_BITS else _last + 1 + secrets.randbits(32)
        value = _last
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def new_id(prefix: str) -> str:
    return make_id(prefix, new_suffix())


def derived_id(first: str, number: int) -> str:
    """Return the id of the `number`-th companion of a thing, the same for every call; sorts beside it."""
    prefix, _, suffix = first.rpartition("_")
    value = int.from_bytes(hashlib.sha256(f"{first} {number}".encode()).digest()[:10], "big")
    tail = "".join(_ALPHABET[value >> shift & 31] for shift in range(75, -1, -5))
    return make_id(prefix, suffix[:10] + tail)


def make_id(prefix: str, suffix: str) -> str:
    """Make an id of a kind: `ds_…`, `job_…`, `ckpt_…`."""
    return f"{prefix}_{suffix}"
