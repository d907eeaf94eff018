"""Dataclasses from their JSON form, checked against their annotations. Standard library only, for any process."""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T", bound="DataclassInstance")


_Read = Callable[[Any, object, str], Any]
_hints = cache(get_type_hints)


class Misfit(ValueError):
    """Raised for a value that is not of its type; the text names its place."""


def from_values(cls: type[_T], values: object, where: str = "", *, ignores_unknown: bool = False) -> _T:
    """Build a dataclass from the JSON form that `dataclasses.asdict` gives. `where` names it in errors.

    `ignores_unknown`: leave out keys that a later version has written, here and in the dataclasses inside.

    Raises:
        Misfit: unknown keys, unless they are ignored, missing ones, or a value of another type than the field's.
    """
    where = where or cls.__name__
    if not isinstance(values, dict):
        raise Misfit(f"{where} must be an object.")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    required = {
        name
        for name, item in fields.items()
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    unknown = sorted(values.keys() - fields.keys())
    if unknown and not ignores_unknown:
        raise Misfit(f"{where} has no {', '.join(unknown)}.")
    if missing := sorted(required - values.keys()):
        raise Misfit(f"{where} lacks {', '.join(missing)}.")
    hints = _hints(cls)
    known = {name: value for name, value in values.items() if name in fields}
    read = partial(_value, ignores_unknown=ignores_unknown)
    return cls(**{name: read(hints[name], value, f"{where}.{name}") for name, value in known.items()})


def _value(hint: Any, value: object, where: str, *, ignores_unknown: bool) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    read = partial(_value, ignores_unknown=ignores_unknown)
    if hint is Any or is_typeddict(hint):
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(read, arguments, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_values(hint, value, where, ignores_unknown=ignores_unknown)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return _tuple(read, arguments, value, where)
    if origin in (list, Sequence) and isinstance(value, list):
        return [read(arguments[0], item, where) for item in value]
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {str(key): read(arguments[1], item, where) for key, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and issubclass(hint, Enum) and value in [member.value for member in hint]:
        return hint(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise Misfit(f"{where} has a value of another type than it takes.")


def _first_that_fits(read: _Read, options: tuple[Any, ...], value: object, where: str) -> Any:
    for option in options:
        if option is type(None) and value is None:
            return None
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return read(option, value, where)
    for option in options:
        try:
            return read(option, value, where)
        except Misfit:
            continue
    raise Misfit(f"{where} has a value of another type than it takes.")


def _tuple(read: _Read, arguments: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(read(arguments[0], item, where) for item in value)
    if len(value) != len(arguments):
        raise Misfit(f"{where} must have {len(arguments)} values.")
    return tuple(read(option, item, where) for option, item in zip(arguments, value, strict=True))
