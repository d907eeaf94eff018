"""Memory-mapped reader of tokenised rows (layout: `core.domain.training.encoded_format`)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.domain.errors import InvalidRequest
from core.domain.training import encoded_format

Int64Array = NDArray[np.int64]

_COLUMN = {name: position for position, name in enumerate(encoded_format.COLUMNS)}
_FIRST_SPAN = [_COLUMN["first_start"], _COLUMN["second_start"]]


class BrokenEncodedData(InvalidRequest):
    code = "broken-encoded-data"
    title = "The tokenised data is damaged"


@dataclass(frozen=True, kw_only=True)
class EncodedRow:
    """One tokenised row as views into the mapped files; lengths in tokens."""

    line: int
    """Line of the source file, from 1."""
    label: int
    prompt: NDArray[np.int32]
    """[P] token ids, may be empty."""
    first: NDArray[np.int32]
    """[R1] the chosen (or only) response."""
    second: NDArray[np.int32]
    """[R2] the rejected response, or the one `with_partners` gave; else empty for demonstrations and unpaired rows."""
    first_scored: NDArray[np.uint8]
    """[R1] 1 where a loss is taken on the token."""
    second_scored: NDArray[np.uint8]
    """[R2]"""


class EncodedData:
    """A directory of tokenised rows, opened without reading it: only the row table's pages in use take memory.

    Raises:
        BrokenEncodedData: a file is missing, of another version, or of another size than `meta.json` says.
    """

    def __init__(
        self,
        meta: dict[str, object],
        tokens: NDArray[np.int32],
        scored: NDArray[np.uint8],
        rows: Int64Array,
        partners: Int64Array | None = None,
    ) -> None:
        self.kind = str(meta["kind"])
        """"preference", "demonstration" or "unpaired"."""
        self.digest = str(meta["digest"])
        self._meta = meta
        self._tokens = tokens
        self._scored = scored
        self._rows = rows
        self._partners = partners

    @classmethod
    def open(cls, directory: Path | str) -> "EncodedData":
        directory = Path(directory)
        try:
            meta = json.loads((directory / encoded_format.META_FILE).read_text(encoding="utf-8"))
            num_rows, num_tokens = int(meta["num_rows"]), int(meta["num_tokens"])
            tokens = _map(directory / encoded_format.TOKENS_FILE, np.dtype("<i4"), (num_tokens,))
            scored = _map(directory / encoded_format.SCORED_FILE, np.dtype("u1"), (num_tokens,))
            rows = _map(directory / encoded_format.ROWS_FILE, np.dtype("<i8"), (num_rows, len(_COLUMN)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BrokenEncodedData("The tokenised rows cannot be read; tokenise the dataset again.") from error
        if meta.get("version") != encoded_format.VERSION:
            raise BrokenEncodedData(
                f"The tokenised rows are of layout version {meta.get('version')}, this engine reads "
                f"{encoded_format.VERSION}; tokenise the dataset again."
            )
        return cls(meta, tokens, scored, rows)

    def select(self, indices: Int64Array) -> "EncodedData":
        """Return a view of some of the rows, in the given order."""
        return EncodedData(self._meta, self._tokens, self._scored, self._rows[indices])

    def with_partners(self, partners: Int64Array) -> "EncodedData":
        """Return the same rows, each with the first response of another row as its second response.

        Args:
            partners: [N] whose response.
        """
        return EncodedData(self._meta, self._tokens, self._scored, self._rows, partners)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_tokens(self) -> int:
        return len(self._tokens)

    @property
    def largest_token(self) -> int:
        """Return the largest token id; reads the whole file once."""
        return int(self._tokens.max()) if len(self._tokens) else 0

    @property
    def lines(self) -> Int64Array:
        """Line numbers in the source file, [N]."""
        return self._rows[:, _COLUMN["line"]]

    @property
    def labels(self) -> Int64Array:
        """Labels of unpaired rows, [N]: 1 for a desirable response."""
        return self._rows[:, _COLUMN["label"]]

    @property
    def prompt_lengths(self) -> Int64Array:
        """Tokens of each prompt, [N]."""
        return self._span("prompt_start", "first_start")

    @property
    def first_lengths(self) -> Int64Array:
        """Tokens of each chosen (or only) response, [N]."""
        return self._span("first_start", "second_start")

    @property
    def second_lengths(self) -> Int64Array:
        """Tokens of each rejected (or partner's) response, [N]; 0 where there is none."""
        if self._partners is not None:
            return self.first_lengths[self._partners]
        return self._span("second_start", "end")

    def row(self, index: int) -> EncodedRow:
        """Return one row; raises IndexError for an index out of [0, N)."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        line, prompt, first, second, end, label = (int(cell) for cell in self._rows[index])
        other_start, other_end = second, end
        if self._partners is not None:
            other_start, other_end = (int(cell) for cell in self._rows[self._partners[index], _FIRST_SPAN])
        return EncodedRow(
            line=line,
            label=label,
            prompt=self._tokens[prompt:first],
            first=self._tokens[first:second],
            second=self._tokens[other_start:other_end],
            first_scored=self._scored[first:second],
            second_scored=self._scored[other_start:other_end],
        )

    def _span(self, start: str, end: str) -> Int64Array:
        return self._rows[:, _COLUMN[end]] - self._rows[:, _COLUMN[start]]


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map a file as an array; raises ValueError when it is not exactly as long as `shape` says."""
    expected = int(np.prod(shape)) * dtype.itemsize
    if path.stat().st_size != expected:
        raise ValueError(f"{path.name} is {path.stat().st_size} bytes, expected {expected}")
    if expected == 0:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
