"""Fingerprints of accepted rows to find duplicates: 64-bit hashes, and for the first rows a MinHash sketch.

A row's sketch is the minimum of 16 hash functions over its shingles (Broder 1997): the share of equal minima estimates
the Jaccard similarity of two rows' shingle sets. A shingle is the 16 bytes from the beginning of a word on; where
words are not spaced, every character begins one. Many rows are sketched at once.

Hashes are Python's own, which are the same for the same text within a check and the helpers it forks, and salted anew
for each.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from core.datasets.rows.contents import Accepted, Contents
from core.domain.dataset_rows import Message, Text

FINGERPRINT: Final = np.dtype([("line", "<u4"), ("row", "<u4"), ("prompt", "<u8"), ("first", "<u8"), ("second", "<u8")])
NUM_MINIMA: Final = 16
_MAX_CHARS: Final = 2_000
"""Characters of each text that go into a sketch."""
_SHINGLE_BYTES: Final = 16
_SKETCHED_AT_ONCE: Final = 200
"""Texts sketched at once, few enough for the processor's cache."""
_GAP: Final = b" " * _SHINGLE_BYTES
# Upper case to lower; white space and punctuation to a space; bytes of non-ASCII characters as they are.
_LEVEL: Final = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256)
)
# Odd numbers that were drawn once: to load `numpy.random` takes a tenth of the time of a small check.
_MULTIPLIERS: Final = np.array(
    (
        *(1755160405, 1217382523, 1793122529, 1513226115, 2014648319, 1588207623, 1131987457, 1990422555),
        *(1752113293, 1765117581, 1725835037, 1193659569, 1167259939, 1639729187, 1996424681, 1396378473),
    ),
    np.uint32,
)
_MIX: Final = np.array((0x5C88548DFC53119D, 0x5FD18C4CADB9DF73, 0x716C2C75245C2725), np.uint64)


class Fingerprints(NamedTuple):
    """Fingerprints of the accepted rows of a batch."""

    records: npt.NDArray[np.void]
    """FINGERPRINT; `row` still counted from the beginning of the batch."""
    sketches: npt.NDArray[np.uint32]
    """[rows, NUM_MINIMA], or none"""


NO_FINGERPRINTS: Final = Fingerprints(np.empty(0, FINGERPRINT), np.empty((0, NUM_MINIMA), np.uint32))


def take_fingerprints(accepted: Sequence[Accepted], *, with_sketches: bool) -> Fingerprints:
    if not accepted:
        return NO_FINGERPRINTS
    lines, rows, examples, contents = zip(*accepted, strict=True)
    prompts, firsts, seconds, *_ = zip(*examples, strict=True)
    records = np.empty(len(accepted), FINGERPRINT)
    records["line"], records["row"] = lines, rows
    records["prompt"], records["first"], records["second"] = _hashes(prompts), _hashes(firsts), _hashes(seconds)
    if not with_sketches:
        return Fingerprints(records, NO_FINGERPRINTS.sketches)
    starts = range(0, len(contents), _SKETCHED_AT_ONCE)
    sketches = [sketch([_words(said) for said in contents[start : start + _SKETCHED_AT_ONCE]]) for start in starts]
    return Fingerprints(records, np.concatenate(sketches))


def _hashes(texts: Sequence[Text | None]) -> npt.NDArray[np.uint64]:
    hashes = [hash(text) if type(text) is str else _hash_messages(text) for text in texts]
    return np.array(hashes, np.int64).view(np.uint64)


def _hash_messages(text: Text | None) -> int:
    """Hash messages; the result is 0 where there is no second response."""
    if text is None or isinstance(text, str):
        return hash(text) if text else 0
    return hash(
        tuple([(message["role"], message["content"] if len(message) == 2 else _identity(message)) for message in text])
    )


def _identity(message: Message) -> bytes:
    return orjson.dumps(message, option=orjson.OPT_SORT_KEYS)


def _words(contents: Contents) -> bytes:
    return "\n".join([text[:_MAX_CHARS] for text in contents]).encode()


def sketch(texts: list[bytes]) -> npt.NDArray[np.uint32]:
    """Compute MinHash sketches of texts, [len(texts), NUM_MINIMA]."""
    buffer = (_GAP + _GAP.join(texts) + _GAP).translate(_LEVEL)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + len(_GAP)
    starts = len(_GAP) + np.concatenate(([0], np.cumsum(lengths[:-1])))
    anchors = _shingle_starts(buffer, starts)
    windows = np.ndarray((len(buffer) - _SHINGLE_BYTES + 1,), f"V{_SHINGLE_BYTES}", buffer, strides=(1,))
    halves = windows[anchors].view("<u8").reshape(-1, 2)
    hashes = halves[:, 0] * _MIX[0] ^ (halves[:, 1] * _MIX[1]) >> np.uint64(7)
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX[2]
    short = (hashes >> np.uint64(32)).astype(np.uint32)
    begins = np.searchsorted(anchors, starts)
    return np.stack([np.minimum.reduceat(short * multiplier, begins) for multiplier in _MULTIPLIERS], axis=1)


def _shingle_starts(buffer: bytes, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return positions where a word or an unspaced character begins, and where each text does."""
    characters = np.frombuffer(buffer, np.uint8)
    is_space = characters == 32
    begins = np.zeros(len(buffer), np.bool_)
    begins[1:] = (is_space[:-1] & ~is_space[1:]) | (characters[1:] >= 0xE0)
    begins[starts] = True
    return np.flatnonzero(begins)
