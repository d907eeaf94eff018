"""Choice of the columns of a Parquet file to read, from schema and footer before any value is decoded."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from core.datasets.messages.undecoded import Undecoded
from core.datasets.sources.arrow_values import children, is_binary, is_plain

WIDE_BYTES: Final = 8 * 1024
"""Mean size of a column's value; a wider one is read only where its name is one that a layout knows."""
_MAX_GROUPS_LOOKED_AT: Final = 100
_NUMBER = re.compile(r"(?<!\d)\d++$")
_AS_TEXT: Final = "write it as text or JSON"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    column: str
    """Top-level column of the table."""
    type: pa.DataType


@dataclass(frozen=True, kw_only=True)
class ReadColumns:
    """Columns to read from each row group."""

    leaf_paths: list[str]
    """Paths as Parquet names them (`messages.list.element.role`)."""
    undecoded: dict[str, Undecoded | None]
    """Columns that are not read, with what stands in each row instead; None where every value is null."""
    row_bytes: int
    """Mean size of a row in the columns that are read, uncompressed."""


def choose_columns(file: pq.ParquetFile, wanted: Collection[str]) -> ReadColumns:
    """Choose columns of texts, numbers, lists and objects; of bytes and wide ones only the wanted.

    `wanted`: the names that layouts know or the user maps. A name that differs in its final number counts as known.
    """
    leaves = list(_leaves(file.schema_arrow))
    variants = {field.name for field in file.schema_arrow if _holds_variant(field.type)}
    sizes = _mean_sizes(file.metadata)
    known = {_NUMBER.sub("", name) for name in wanted}
    widths: dict[str, int] = {}
    for leaf, size in zip(leaves, sizes, strict=True):
        widths[leaf.column] = widths.get(leaf.column, 0) + size
    taken = []
    for index, leaf in enumerate(leaves):
        is_known = _NUMBER.sub("", leaf.column) in known
        is_readable = is_plain(leaf.type) or (is_known and is_binary(leaf.type))
        if leaf.column not in variants and is_readable and (is_known or widths[leaf.column] <= WIDE_BYTES):
            taken.append(index)
    read = {leaves[index].column for index in taken}
    left = [name for name in file.schema_arrow.names if name not in read]
    return ReadColumns(
        leaf_paths=[file.schema.column(index).path for index in taken],
        undecoded={name: _stand_in(file, name, leaves) for name in left},
        row_bytes=sum(sizes[index] for index in taken),
    )


def _leaves(schema: pa.Schema) -> Iterator[Leaf]:
    """Return leaves in the order of the file's columns."""
    waiting = [(field.name, field.type) for field in reversed(list(schema))]
    while waiting:
        column, value_type = waiting.pop()
        below = children(value_type)
        if below is None:
            yield Leaf(column=column, type=value_type)
        else:
            waiting += [(column, field.type) for field in reversed(below)]


def _holds_variant(value_type: pa.DataType) -> bool:
    """Whether a column is Parquet's VARIANT: a struct of two columns of bytes, and a typed one if shredded."""
    if pt.is_struct(value_type):
        fields = {field.name: field.type for field in value_type}
        if {"metadata", "value"} <= fields.keys() and is_binary(fields["metadata"]) and is_binary(fields["value"]):
            return True
    return any(_holds_variant(field.type) for field in children(value_type) or ())


def _mean_sizes(metadata: pq.FileMetaData) -> list[int]:
    """Return uncompressed bytes per row, by leaf."""
    num_groups = min(metadata.num_row_groups, _MAX_GROUPS_LOOKED_AT)
    groups = [metadata.row_group(index) for index in range(num_groups)]
    num_rows = max(1, sum(group.num_rows for group in groups))
    return [
        sum(group.column(index).total_uncompressed_size for group in groups) // num_rows
        for index in range(metadata.num_columns)
    ]


def _stand_in(file: pq.ParquetFile, name: str, leaves: list[Leaf]) -> Undecoded | None:
    indices = [index for index, leaf in enumerate(leaves) if leaf.column == name]
    if _are_null(file.metadata, indices):
        return None
    value_type = file.schema_arrow.field(name).type
    if _holds_variant(value_type):
        return Undecoded("a Parquet VARIANT; cast it to JSON or to text before writing")
    types = {leaves[index].type for index in indices}
    if all(is_plain(leaf_type) for leaf_type in types):
        return Undecoded("a wide column that no format knows by this name; map it with `columns` to have it read")
    if any(is_binary(leaf_type) for leaf_type in types):
        return Undecoded(f"bytes ({value_type}); {_AS_TEXT}")
    shown = str(value_type) if len(str(value_type)) <= 60 else str(next(iter(types)))
    return Undecoded(f"of the type {shown}; {_AS_TEXT}")


def _are_null(metadata: pq.FileMetaData, indices: list[int]) -> bool:
    """Whether all values are null according to the statistics of every row group."""
    groups = [metadata.row_group(index) for index in range(min(metadata.num_row_groups, _MAX_GROUPS_LOOKED_AT))]
    if len(groups) < metadata.num_row_groups:
        return False
    chunks = [group.column(index) for group in groups for index in indices]
    return bool(chunks) and all(
        chunk.is_stats_set and chunk.statistics.has_null_count and chunk.statistics.null_count == chunk.num_values
        for chunk in chunks
    )
