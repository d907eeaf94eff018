"""Normalised rows → the encoded layout that the engine maps, streaming: memory does not grow with the rows."""

import hashlib
import json
import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.domain import encoded_format as layout
from core.domain.dataset_rows import DatasetKind
from core.tokenization.errors import NothingToEncode, UnencodableRow
from core.tokenization.pair_tokenizer import PairTokenizer

MAX_SET_ASIDE_KEPT = 1000
PROGRESS_EVERY_ROWS = 200
_ROW = struct.Struct("<6q")


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A row that is not trained on."""

    line: int
    num_tokens: int | None
    """None where the row could not be encoded at all."""
    detail: str


@dataclass(kw_only=True)
class EncodeSummary:
    num_rows: int = 0
    num_tokens: int = 0
    num_set_aside: int = 0
    set_aside: list[SetAside] = field(default_factory=list)
    """The first `MAX_SET_ASIDE_KEPT`."""
    digest: str = ""
    """Of the content; the same rows, tokenizer and limit give the same one."""

    def put_aside(self, row: SetAside) -> None:
        self.num_set_aside += 1
        if len(self.set_aside) < MAX_SET_ASIDE_KEPT:
            self.set_aside.append(row)


def encode_file(
    rows: Path,
    tokenizer: PairTokenizer,
    directory: Path,
    *,
    kind: DatasetKind,
    max_length: int,
    on_progress: Callable[[int], None] | None = None,
) -> EncodeSummary:
    """Encodes every row of `rows` (JSON lines) into `directory`, which is made.

    A row whose prompt and either response exceed `max_length` tokens together is set aside, never cut.

    Raises:
        NothingToEncode: no row is left.
        UnusableChatTemplate: the base model's template is at fault.
    """
    directory.mkdir(parents=True)
    summary = EncodeSummary()
    with ExitStack() as stack, rows.open("rb") as lines:
        writer = _Writer(stack, directory)
        for number, line in enumerate(lines):
            if on_progress and number % PROGRESS_EVERY_ROWS == 0:
                on_progress(number)
            _encode_row(json.loads(line), tokenizer, writer, summary, kind, max_length)
    if not summary.num_rows:
        raise NothingToEncode(_why_nothing(summary, max_length))
    summary.num_tokens, summary.digest = writer.num_tokens, writer.digest(kind)
    meta = {
        "version": layout.VERSION,
        "kind": kind.value,
        "num_rows": summary.num_rows,
        "num_tokens": summary.num_tokens,
        "digest": summary.digest,
    }
    (directory / layout.META_FILE).write_text(json.dumps(meta) + "\n", encoding="utf-8")
    return summary


class _Writer:
    """Appends rows to the three files, and digests what it writes."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.num_tokens = 0
        names = (layout.TOKENS_FILE, layout.SCORED_FILE, layout.ROWS_FILE)
        self._files: list[BinaryIO] = [stack.enter_context((directory / name).open("wb")) for name in names]
        self._hashes = [hashlib.sha256() for _ in names]

    def add(self, line: int, label: bool, prompt: list[int], responses: list[tuple[list[int], list[bool]]]) -> None:
        start = self.num_tokens
        ids, scored = list(prompt), [False] * len(prompt)
        starts = []
        for response_ids, response_scored in responses:
            starts.append(start + len(ids))
            ids += response_ids
            scored += response_scored
        self.num_tokens += len(ids)
        second = starts[1] if len(starts) > 1 else self.num_tokens
        row = _ROW.pack(line, start, starts[0], second, self.num_tokens, int(label))
        parts = (struct.pack(f"<{len(ids)}i", *ids), bytes(scored), row)
        for file, digest, data in zip(self._files, self._hashes, parts, strict=True):
            file.write(data)
            digest.update(data)

    def digest(self, kind: DatasetKind) -> str:
        parts = [f"{layout.VERSION} {kind.value}", *(part.hexdigest() for part in self._hashes)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _encode_row(
    row: Any, tokenizer: PairTokenizer, writer: _Writer, summary: EncodeSummary, kind: DatasetKind, max_length: int
) -> None:
    try:
        if kind is DatasetKind.PREFERENCE:
            pair = tokenizer.encode_preference(row)
            prompt = pair.prompt_ids
            responses = [(pair.chosen_ids, pair.chosen_scored), (pair.rejected_ids, pair.rejected_scored)]
        else:
            answer = tokenizer.encode_demonstration(row)
            prompt, responses = answer.prompt_ids, [(answer.response_ids, answer.response_scored)]
    except UnencodableRow as error:
        summary.put_aside(SetAside(line=row["line"], num_tokens=None, detail=error.detail))
        return
    num_tokens = len(prompt) + max(len(ids) for ids, _ in responses)
    if num_tokens > max_length:
        detail = f"{num_tokens} tokens are more than max_length {max_length}"
        summary.put_aside(SetAside(line=row["line"], num_tokens=num_tokens, detail=detail))
        return
    summary.num_rows += 1
    writer.add(row["line"], bool(row.get("label")), prompt, responses)


def _why_nothing(summary: EncodeSummary, max_length: int) -> str:
    if not summary.set_aside:
        return "There is no row to train on."
    first = summary.set_aside[0]
    return (
        f"No row fits: all {summary.num_set_aside} were set aside (line {first.line}: {first.detail}). "
        f"Raise max_length (now {max_length}) or shorten the rows."
    )
