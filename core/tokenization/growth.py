"""Estimates of the text that a template is about to make, before it is made."""

from collections.abc import Mapping
from typing import Any

_MAX_ESCAPED = 6
"""Characters of one escaped character: `&quot;`, or `\\u0000` in JSON."""
_MAX_PERCENT_ENCODED = 12
_LINK_CHARS = 64
"""Characters that a link adds to an address, besides its target and rel."""


def size_of(value: Any, limit: int) -> int:
    """Return about how many characters the value has as a text; counting ends beyond the limit."""
    size, rest = 0, [value]
    while rest and size <= limit:
        one = rest.pop()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            size += 4 * len(one)
            if size <= limit:
                rest += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            size += 2 * len(one)
            if size <= limit:
                rest += one
        else:
            size += 8
    return size


def json_size(value: Any, limit: int, indent: Any, separators: Any) -> int:
    """Return at most how many characters the value has as JSON, each of them escaped."""
    escaped = _MAX_ESCAPED * size_of(value, limit)
    if escaped > limit:
        return escaped
    num_items, depth = _items_and_depth(value)
    width = indent if isinstance(indent, int) else len(indent or "")
    return escaped + num_items * (depth * width + sum(map(len, separators or ())))


def growth(name: str, text: str, args: tuple[Any, ...], limit: int) -> int:
    """Return about how many characters a filter or method of that name would make of the text."""
    match name:
        case "replace" if len(args) >= 2:
            return len(text) + text.count(str(args[0])) * size_of(args[1], limit)
        case "join" if args:
            num_items = len(args[0]) if hasattr(args[0], "__len__") else 0
            return size_of(args[0], limit) + len(text) * num_items
        case "format" | "format_map":
            return len(text) * max((size_of(value, limit) for value in args), default=0) // 2
        case "indent":
            return len(text) + (text.count("\n") + 1) * _width(args, 4)
        case "expandtabs":
            return len(text) + text.count("\t") * _width(args, 8)
        case "wordwrap":
            width = max(1, next((value for value in args if isinstance(value, int)), 79))
            wrap = max((len(value) for value in args if isinstance(value, str)), default=1)
            return len(text) + wrap * (len(text.split()) + len(text) // width + text.count("\n") + 1)
        case "e" | "escape" | "forceescape":
            return len(text) + (_MAX_ESCAPED - 1) * sum(map(text.count, "&<>'\""))
        case "urlencode":
            return _MAX_PERCENT_ENCODED * len(text)
        case "urlize":
            around = sum(len(value) for value in args if isinstance(value, str)) + _LINK_CHARS
            return 3 * len(text) + around * len(text.split())
    return len(text)


def _width(args: tuple[Any, ...], default: int) -> int:
    """Return the width that the first argument gives, as a number or as a text."""
    first = args[0] if args else default
    return first if isinstance(first, int) else len(str(first))


def _items_and_depth(value: Any) -> tuple[int, int]:
    """Return how many items a value has in all, and how deep it is; its size is known to be bounded."""
    num_items, depth, level = 1, 0, [value]
    while level:
        depth += 1
        inner: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                inner += one.values()
            elif isinstance(one, list | tuple):
                inner += one
        num_items += len(inner)
        level = inner
    return num_items, depth
