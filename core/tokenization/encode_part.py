"""Encoding of one byte range of `rows.jsonl` to the columns of the encoded layout, in files of its own.

Also a program, `python -m core.tokenization.encode_part <job.json>`: many of them share a large file's work. It needs
no torch, and ends when whoever started it does.
"""

import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from core.disk_space import EXIT_OUT_OF_SPACE, is_out_of_space
from core.domain.dataset_rows import DatasetKind, DemonstrationRow, PreferenceRow, UnpairedRow
from core.domain.set_aside import SetAsideReason
from core.domain.training import encoded_format
from core.domain.typed_json import from_values
from core.tokenization.errors import DamagedRows, UnencodableRow, UnusableChatTemplate, UnusableTokenizer
from core.tokenization.pair_tokenizer import PairTokenizer

OUTCOME_FILE = "outcome.json"
PROGRESS_FILE = "progress"
PROGRESS_ROWS = 200
EQUAL_PAIR = "chosen and rejected are the same tokens once rendered, so there is nothing to prefer"
MAX_SET_ASIDE_KEPT = 1000
"""Rows set aside that are told one by one; all are counted."""


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A row that is not trained on."""

    line: int
    num_tokens: int | None
    """Tokens of prompt and longer response; None where the row could not be encoded at all."""
    detail: str
    reason: SetAsideReason


@dataclass(frozen=True, kw_only=True)
class PartJob:
    model_dir: str
    now: str
    rows: str
    kind: str
    max_length: int
    keeps_equal: bool
    """Keep pairs whose chosen and rejected response are the same tokens."""
    template_kwargs: dict[str, Any]
    keeps_tail: bool = False
    start: int
    """First byte; the part begins with the first line that starts at or after it."""
    end: int
    """One past the last byte at which a line of this part may start."""
    directory: str


@dataclass(frozen=True, kw_only=True)
class PartOutcome:
    num_rows: int
    num_tokens: int
    num_set_aside: int
    set_aside: list[SetAside]
    """The first `MAX_SET_ASIDE_KEPT`."""
    set_aside_counts: dict[str, int]
    """All of them, by reason."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """One encoded row, its sequences one after another."""

    ids: list[int]
    scored: list[bool]
    lengths: tuple[int, int, int]
    """prompt, first response, second response"""
    label: int

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and longer response, which must fit."""
        return self.lengths[0] + max(self.lengths[1:])

    @property
    def is_equal_pair(self) -> bool:
        """Whether both responses have the same tokens and the same scored ones."""
        prompt, first, second = self.lengths
        if first != second:
            return False
        middle = prompt + first
        return self.ids[prompt:middle] == self.ids[middle:] and self.scored[prompt:middle] == self.scored[middle:]


def encode_part(tokenizer: PairTokenizer, job: PartJob, on_rows: Callable[[int], None]) -> PartOutcome:
    """Write the part's three columns into its directory; offsets in `rows.i64` are relative to the part.

    Raises:
        DamagedRows: a line is not a row of that kind.
        UnusableChatTemplate, UnusableTokenizer: no row can be encoded.
    """
    encode = _encoder(tokenizer, DatasetKind(job.kind))
    with ExitStack() as stack:
        writer = _PartWriter(Path(job.directory), stack)
        for row in _read_rows(Path(job.rows), job.start, job.end, on_rows):
            outcome = _try_encode(encode, row, job)
            if isinstance(outcome, SetAside):
                writer.set_aside(outcome)
            else:
                writer.write(row["line"], outcome)
    return writer.outcome()


class _PartWriter:
    def __init__(self, directory: Path, stack: ExitStack) -> None:
        names = (encoded_format.TOKENS_FILE, encoded_format.SCORED_FILE, encoded_format.ROWS_FILE)
        self._tokens, self._scored, self._rows = (stack.enter_context((directory / n).open("wb")) for n in names)
        self._num_rows = self._num_tokens = self._num_set_aside = 0
        self._counts: Counter[str] = Counter()
        self._kept: list[SetAside] = []

    def write(self, line: int, columns: _Columns) -> None:
        prompt, first, _ = columns.lengths
        start, end = self._num_tokens, self._num_tokens + len(columns.ids)
        self._tokens.write(little_endian("i", columns.ids))
        self._scored.write(bytes(columns.scored))
        self._rows.write(little_endian("q", [line, start, start + prompt, start + prompt + first, end, columns.label]))
        self._num_rows += 1
        self._num_tokens = end

    def set_aside(self, row: SetAside) -> None:
        self._num_set_aside += 1
        self._counts[row.reason] += 1
        if len(self._kept) < MAX_SET_ASIDE_KEPT:
            self._kept.append(row)

    def outcome(self) -> PartOutcome:
        return PartOutcome(
            num_rows=self._num_rows,
            num_tokens=self._num_tokens,
            num_set_aside=self._num_set_aside,
            set_aside=self._kept,
            set_aside_counts=dict(self._counts),
        )


def little_endian(typecode: str, values: list[int]) -> bytes:
    column = array(typecode, values)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _read_rows(path: Path, start: int, end: int, on_rows: Callable[[int], None]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()  # the rest of a line that the part before takes
        position = file.tell()
        number = 0
        while position < end and (line := file.readline()):
            position += len(line)
            yield _parse(line)
            number += 1
            if number % PROGRESS_ROWS == 0:
                on_rows(number)
    on_rows(number)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("line"), int):
        raise DamagedRows("The stored rows of the dataset are damaged: a line is not a row. Upload the file again.")
    return row


def _encoder(tokenizer: PairTokenizer, kind: DatasetKind) -> Callable[[dict[str, Any]], _Columns]:
    def preference(row: dict[str, Any]) -> _Columns:
        pair = tokenizer.encode_preference(cast(PreferenceRow, row))
        prompt = pair.prompt_ids
        return _Columns(
            [*prompt, *pair.chosen_ids, *pair.rejected_ids],
            [*[False] * len(prompt), *pair.chosen_scored, *pair.rejected_scored],
            (len(prompt), len(pair.chosen_ids), len(pair.rejected_ids)),
            0,
        )

    def single(row: dict[str, Any]) -> _Columns:
        encoded = tokenizer.encode_demonstration(cast(DemonstrationRow | UnpairedRow, row))
        prompt, response = encoded.prompt_ids, encoded.response_ids
        flags = [*[False] * len(prompt), *encoded.response_scored]
        return _Columns([*prompt, *response], flags, (len(prompt), len(response), 0), int(row.get("label", False)))

    return preference if kind is DatasetKind.PREFERENCE else single


def _try_encode(encode: Callable[[dict[str, Any]], _Columns], row: dict[str, Any], job: PartJob) -> _Columns | SetAside:
    try:
        columns = encode(row)
    except UnencodableRow as error:
        reason = SetAsideReason.NOT_ENCODABLE
        return SetAside(line=row["line"], num_tokens=None, detail=error.detail, reason=reason)
    except (KeyError, TypeError) as error:
        raise DamagedRows(
            f"The stored row of line {row['line']} is not of the kind that the dataset says. Upload the file again."
        ) from error
    if columns.num_tokens > job.max_length:
        detail = f"{columns.num_tokens} tokens are more than max_length {job.max_length}"
        reason = SetAsideReason.TOO_LONG
    elif columns.is_equal_pair and not job.keeps_equal:
        detail, reason = EQUAL_PAIR, SetAsideReason.EQUAL_ONCE_RENDERED
    else:
        return columns
    return SetAside(line=row["line"], num_tokens=columns.num_tokens, detail=detail, reason=reason)


def main() -> None:
    job = from_values(PartJob, json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    directory, parent = Path(job.directory), os.getppid()

    def on_rows(done: int) -> None:
        if os.getppid() != parent:
            sys.exit("whoever started this is gone")
        (directory / PROGRESS_FILE).write_text(str(done), encoding="utf-8")

    try:
        now = datetime.fromisoformat(job.now)
        tokenizer = PairTokenizer.open(
            Path(job.model_dir), now=now, template_kwargs=job.template_kwargs, keeps_tail=job.keeps_tail
        )
        outcome = asdict(encode_part(tokenizer, job, on_rows))
    except OSError as error:
        if is_out_of_space(error):
            sys.exit(EXIT_OUT_OF_SPACE)
        raise
    except (DamagedRows, UnusableChatTemplate, UnusableTokenizer) as error:
        outcome = {"error": error.code, "detail": error.detail}
    try:
        (directory / OUTCOME_FILE).write_text(json.dumps(outcome), encoding="utf-8")
    except OSError as error:
        sys.exit(EXIT_OUT_OF_SPACE if is_out_of_space(error) else 1)


if __name__ == "__main__":
    main()
