"""What is kept of each accepted row to find duplicates: 64-bit digests, and for the first rows a MinHash sketch.

A row's sketch is the minimum of 16 hash functions over its shingles (Broder 1997): the share of equal minima estimates
the Jaccard similarity of two rows' shingle sets. A shingle is the 16 bytes from the beginning of a word on; where
words are not spaced, every character begins one. All rows of a batch are sketched at once.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

from core.datasets.judgement import content_of
from core.datasets.layouts.layout import Example
from core.domain.dataset_rows import Text

FINGERPRINT: Final = np.dtype([("line", "<u4"), ("row", "<u4"), ("prompt", "<u8"), ("first", "<u8"), ("second", "<u8")])
NUM_MINIMA: Final = 16
_MAX_CHARS: Final = 2_000
"""Of each text that goes into a sketch."""
_SHINGLE_BYTES: Final = 16
_GAP: Final = b" " * _SHINGLE_BYTES
# Upper case to lower; white space and punctuation to a space; bytes of non-ASCII characters as they are.
_LEVEL: Final = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256)
)
_RANDOM = np.random.Generator(np.random.PCG64(20240607))
_MULTIPLIERS: Final = _RANDOM.integers(1 << 62, 1 << 63, size=NUM_MINIMA // 2, dtype=np.uint64) | np.uint64(1)
_MIX: Final = _RANDOM.integers(1 << 62, 1 << 63, size=3, dtype=np.uint64) | np.uint64(1)


def digest(text: Text) -> bytes:
    """8 bytes; a text and a message that say the same differ."""
    return blake2b(text.encode() if isinstance(text, str) else orjson.dumps(text), digest_size=8).digest()


@dataclass
class Fingerprints:
    with_sketches: bool = False
    digests: bytearray = field(default_factory=bytearray)
    """FINGERPRINT records, `row` still counted from the beginning of the batch."""
    sketches: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, NUM_MINIMA), np.uint32))
    """[rows, NUM_MINIMA]"""
    _texts: list[bytes] = field(default_factory=list)

    def add(self, line: int, row: int, example: Example) -> None:
        digests = self.digests
        digests += line.to_bytes(4, "little") + row.to_bytes(4, "little")
        digests += digest(example.prompt) + digest(example.first)
        digests += digest(example.second) if example.second is not None else bytes(8)
        if self.with_sketches:
            texts = (example.prompt, example.first, example.second or "")
            self._texts.append("\n".join([content_of(text)[:_MAX_CHARS] for text in texts]).encode())

    def finish(self) -> None:
        if self._texts:
            self.sketches = sketch(self._texts)
            self._texts = []


def sketch(texts: list[bytes]) -> npt.NDArray[np.uint32]:
    """[len(texts), NUM_MINIMA]"""
    buffer = (_GAP + _GAP.join(texts) + _GAP).translate(_LEVEL)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + len(_GAP)
    starts = len(_GAP) + np.concatenate(([0], np.cumsum(lengths[:-1])))
    anchors = _shingle_starts(buffer, starts)
    windows = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    hashes = windows[anchors] * _MIX[0] ^ (windows[anchors + 8] * _MIX[1]) >> np.uint64(7)
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX[2]
    hashes ^= hashes >> np.uint64(29)
    products = (hashes[:, None] * _MULTIPLIERS[None, :]).view(np.uint32)
    minima: npt.NDArray[np.uint32] = np.minimum.reduceat(products, np.searchsorted(anchors, starts), axis=0)
    return minima


def _shingle_starts(buffer: bytes, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions where a word or an unspaced character begins, and where each text does."""
    characters = np.frombuffer(buffer, np.uint8)
    is_space = characters == 32
    begins = np.zeros(len(buffer), np.bool_)
    begins[1:] = (is_space[:-1] & ~is_space[1:]) | (characters[1:] >= 0xE0)
    begins[starts] = True
    return np.flatnonzero(begins)
