"""Conversion of Arrow columns to JSON values: maps are objects, JSON columns their value, decimals numbers."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pt

from core.datasets.cells.json_rows import parse_value
from core.datasets.faults import FileFault, Note, RowFault, listed, quoted
from core.datasets.options import MIB, Limits
from core.datasets.sources.json_lines import line_too_long
from core.domain.issue_codes import IssueCode

Row = dict[str, object]
_Fix = Callable[[Any], object]
_BINARY: Final = (pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary)
_LISTS: Final = (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)
_PLAIN: Final = (
    pt.is_null, pt.is_boolean, pt.is_integer, pt.is_floating, pt.is_decimal,
    pt.is_string, pt.is_large_string, pt.is_string_view,
)  # fmt: skip


def is_binary(value_type: pa.DataType) -> bool:
    return any(check(value_type) for check in _BINARY)


def is_json(value_type: pa.DataType) -> bool:
    return isinstance(value_type, pa.BaseExtensionType) and value_type.extension_name == "arrow.json"


def is_plain(value_type: pa.DataType) -> bool:
    """Whether a leaf's values are JSON values, or become such without loss of meaning."""
    if pt.is_dictionary(value_type):
        value_type = value_type.value_type
    return is_json(value_type) or any(check(value_type) for check in _PLAIN)


def children(value_type: pa.DataType) -> list[pa.Field] | None:
    """Return the fields below a nested type, in the order of their leaves; None for a leaf."""
    if pt.is_struct(value_type):
        return list(value_type)
    if pt.is_map(value_type):
        return [value_type.key_field, value_type.item_field]
    if any(check(value_type) for check in _LISTS):
        return [value_type.value_field]
    return None


class BatchMeter:
    """Limits of what is decoded of a file: bytes in all, their ratio to those of the file, and bytes of a row."""

    def __init__(self, num_bytes_in: int, limits: Limits) -> None:
        self._num_bytes_in = num_bytes_in
        self._limits = limits
        self._num_bytes_out = 0
        self._num_rows = 0

    def count(self, batch: pa.RecordBatch) -> None:
        """Add a batch of rows. Raises FileFault where they are over a limit."""
        limits = self._limits
        self._num_bytes_out += batch.nbytes
        _require_ratio(self._num_bytes_in, self._num_bytes_out, limits)
        if self._num_rows + batch.num_rows > limits.max_rows:
            raise FileFault(
                IssueCode.TOO_MANY_ROWS, f"The file has more than {limits.max_rows:,} rows, the limit. Split it."
            )
        if batch.nbytes > limits.max_line_bytes:
            self._require_short_rows(batch)
        self._num_rows += batch.num_rows

    def _require_short_rows(self, batch: pa.RecordBatch) -> None:
        for index in range(batch.num_rows):
            row = batch.slice(index, 1)
            if row.nbytes > self._limits.max_line_bytes:
                widest = max(zip(row.schema.names, row.columns, strict=True), key=lambda column: column[1].nbytes)
                raise line_too_long(self._num_rows + index + 1, self._limits, widest[0])


def require_distinct_names(names: list[str]) -> None:
    """Raise FileFault where a column's name stands twice."""
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise FileFault(
            IssueCode.INVALID_TABLE, f"The table has {listed(doubled)} more than once. Name each column once."
        )


def _require_ratio(num_bytes_in: int, num_bytes_out: int, limits: Limits) -> None:
    if num_bytes_out > limits.max_decompressed_bytes:
        raise decompressed_too_large(limits)
    if num_bytes_out > limits.ratio_free_bytes and num_bytes_out > limits.max_ratio * num_bytes_in:
        raise FileFault(
            IssueCode.COMPRESSION_RATIO,
            f"The file grows more than {limits.max_ratio}-fold when read, as a decompression bomb does. "
            "Send the rows as JSONL if they are real.",
        )


def decompressed_too_large(limits: Limits) -> FileFault:
    return FileFault(
        IssueCode.DECOMPRESSED_TOO_LARGE,
        f"The file is larger than {limits.max_decompressed_bytes // MIB:,} MiB once decompressed. Split it.",
    )


class RowReader:
    """Reader of rows from record batches of one schema."""

    def __init__(self, schema: pa.Schema, limits: Limits) -> None:
        self._names: list[str] = schema.names
        self._fixes = [_fix(field.type, field.name, limits) for field in schema]

    def read(self, batch: pa.RecordBatch) -> list[Row | Note]:
        """Return one entry for each row of the batch: the row, or its fault."""
        try:
            columns = [column.to_pylist() for column in batch.columns]
        except UnicodeDecodeError:
            return [self._read_one(batch.slice(index, 1)) for index in range(batch.num_rows)]
        rows = zip(*columns, strict=True) if columns else ((),) * batch.num_rows
        return [self._row(values) for values in rows]

    def _read_one(self, row: pa.RecordBatch) -> Row | Note:
        values = []
        for name, column in zip(self._names, row.columns, strict=True):
            try:
                values.append(column.to_pylist()[0])
            except UnicodeDecodeError:
                return Note(IssueCode.NOT_UTF8, f"The text in {quoted(name)} is not UTF-8.", f"/{name}")
        return self._row(tuple(values))

    def _row(self, values: tuple[object, ...]) -> Row | Note:
        try:
            return {
                name: value if fix is None or value is None else fix(value)
                for name, value, fix in zip(self._names, values, self._fixes, strict=True)
            }
        except RowFault as fault:
            return fault.note


def _fix(value_type: pa.DataType, column: str, limits: Limits) -> _Fix | None:
    """Return a function that turns `to_pylist`'s values of the type into JSON values; None if they are."""
    if is_json(value_type):
        return lambda text: _read_json(text, column, limits)
    if pt.is_dictionary(value_type):
        return _fix(value_type.value_type, column, limits)
    if pt.is_decimal(value_type):
        return _read_decimal
    if is_binary(value_type):
        return lambda value: _read_binary(value, column)
    if pt.is_map(value_type):
        return _map_fix(_fix(value_type.item_type, column, limits), column)
    if pt.is_struct(value_type):
        return _struct_fix({field.name: _fix(field.type, column, limits) for field in value_type})
    below = children(value_type)
    inner = _fix(below[0].type, column, limits) if below else None
    return _list_fix(inner) if inner else None


def _list_fix(inner: _Fix) -> _Fix:
    return lambda values: [None if value is None else inner(value) for value in values]


def _struct_fix(fixes: dict[str, _Fix | None]) -> _Fix | None:
    needed = {name: fix for name, fix in fixes.items() if fix is not None}
    if not needed:
        return None
    return lambda value: (
        value | {name: None if value[name] is None else fix(value[name]) for name, fix in needed.items()}
    )


def _map_fix(inner: _Fix | None, column: str) -> _Fix:
    def fix(entries: list[tuple[object, object]]) -> Row:
        found: Row = {}
        for key, value in entries:
            name = key if isinstance(key, str) else str(key)
            if name in found:
                raise RowFault(
                    IssueCode.DUPLICATE_KEY,
                    f"The key {quoted(name)} stands twice in one map of {quoted(column)}; which counts is unclear.",
                    f"/{column}",
                )
            found[name] = value if inner is None or value is None else inner(value)
        return found

    return fix


def _read_decimal(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _read_binary(value: bytes, column: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RowFault(
            IssueCode.NOT_UTF8, f"{quoted(column)} holds bytes that are not UTF-8. Write it as text.", f"/{column}"
        ) from None


def _read_json(text: str, column: str, limits: Limits) -> object:
    try:
        return parse_value(text.encode(), limits)
    except RowFault as fault:
        code, detail, _ = fault.note
        raise RowFault(code, f"The JSON column {quoted(column)} holds a broken value. {detail}", f"/{column}") from None
