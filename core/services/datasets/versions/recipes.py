"""Files of new versions: the rows of stored datasets, some left out or swapped, some added, one JSON object a line."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from core.datasets.editing import UnknownLines, swapped_row
from core.domain.errors import FieldError, InvalidRequest
from core.services.datasets.contents import row_lines
from core.storage.object_store import ObjectStore

Row = dict[str, Any]
_MAX_NAMED = 10
_DIGEST_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of a stored dataset, by its name."""

    name: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Edits:
    """What happens to rows on their way into a new file."""

    drop_lines: Collection[int] = ()
    """Lines of the first source."""
    swap_lines: Collection[int] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    """Rows that are added behind those of the sources, as an uploaded file would have them."""
    drops_duplicates: bool = False


@dataclass
class Counts:
    """How many rows were kept of the sources, changed and added."""

    kept: int = 0
    dropped: int = 0
    swapped: int = 0
    duplicates: int = 0
    added: int = 0
    """Rows that came with the request."""
    per_source: dict[str, int] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return self.kept + self.added

    def as_json(self) -> dict[str, int]:
        names = ("dropped", "swapped", "duplicates", "added")
        return {name: value for name in names if (value := getattr(self, name))}


def write_file(store: ObjectStore, sources: Sequence[Source], edits: Edits, target: Path) -> Counts:
    """Write the rows of the sources, in their order, then the added ones. Raises UnknownLines, ObjectMissing."""
    counts, seen = Counts(), set[bytes]()
    with target.open("wb") as output:
        for position, source in enumerate(sources):
            kept_before = counts.kept
            rows = stored_rows(store, source.key)
            for row in _edited(rows, edits, counts) if position == 0 else (_without_line(row) for row in rows):
                if edits.drops_duplicates and _is_known(row, seen):
                    counts.duplicates += 1
                    continue
                output.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                counts.kept += 1
            counts.per_source[source.name] = counts.per_source.get(source.name, 0) + counts.kept - kept_before
        for added in edits.rows:
            output.write(orjson.dumps(added, option=orjson.OPT_APPEND_NEWLINE))
            counts.added += 1
    return counts


def stored_rows(store: ObjectStore, key: str) -> Iterator[Row]:
    """Yield the normalised rows of a dataset. Raises ObjectMissing before the first."""
    return map(orjson.loads, row_lines(store, key))


def row_digest(row: Mapping[str, Any]) -> bytes:
    """Return the digest of a row's content; the line that it stands on makes no difference."""
    content = {name: value for name, value in row.items() if name != "line"}
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST_BYTES).digest()


def _edited(rows: Iterator[Row], edits: Edits, counts: Counts) -> Iterator[Row]:
    dropped, turned = frozenset(edits.drop_lines), frozenset(edits.swap_lines)
    unused = {*dropped, *turned}
    for row in rows:
        line = row["line"]
        unused.discard(line)
        if line in dropped:
            counts.dropped += 1
            continue
        if line in turned:
            counts.swapped += 1
            row = swapped_row(row)
        yield _without_line(row)
    if unused:
        fault = f"no row is on line {', '.join(map(str, sorted(unused)[:_MAX_NAMED]))}; name lines of GET …/rows"
        pointers = [name for name, lines in (("drop_lines", dropped), ("swap_lines", turned)) if unused & lines]
        raise UnknownLines(
            f"In the version that is changed, {fault}.", errors=[FieldError(f"/{name}", fault) for name in pointers]
        )


def _without_line(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "line"}


def _is_known(row: Row, seen: set[bytes]) -> bool:
    digest = row_digest(row)
    if digest in seen:
        return True
    seen.add(digest)
    return False


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a split: its file, and how many rows it holds."""

    path: Path
    num_rows: int


def write_parts(store: ObjectStore, source: Source, fractions: Sequence[float], seed: int, folder: Path) -> list[Part]:
    """Write each row to the part that its prompt is drawn into, so that no prompt is in two parts.

    Raises:
        InvalidRequest: a part would be empty.
    """
    paths = [folder / f"part-{number}.jsonl" for number in range(len(fractions))]
    counts = [0] * len(fractions)
    files = [path.open("wb") for path in paths]
    try:
        for row in stored_rows(store, source.key):
            number = part_of(row["prompt"], fractions, seed)
            files[number].write(orjson.dumps(_without_line(row), option=orjson.OPT_APPEND_NEWLINE))
            counts[number] += 1
    finally:
        for file in files:
            file.close()
    if 0 in counts:
        fault = f"part {counts.index(0) + 1} would have no row: take larger fractions, or another seed"
        raise InvalidRequest(f"The dataset cannot be split so: {fault}.", errors=[FieldError("/fractions", fault)])
    return [Part(path=path, num_rows=count) for path, count in zip(paths, counts, strict=True)]


def part_of(prompt: Any, fractions: Sequence[float], seed: int) -> int:
    """Return the place of the part that a prompt is drawn into: the same for every dataset that has it."""
    digest = blake2b(orjson.dumps([seed, prompt], option=orjson.OPT_SORT_KEYS), digest_size=8).digest()
    place, bound = int.from_bytes(digest, "big") / 2**64, 0.0
    for number, fraction in enumerate(fractions[:-1]):
        bound += fraction
        if place < bound:
            return number
    return len(fractions) - 1
