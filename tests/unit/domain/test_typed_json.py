"""What `asdict` wrote comes back equal; whatever is not of its type is refused with its place."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest

from core.domain.typed_json import Misfit, from_values


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str
    size: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    colour: Colour
    mode: Literal["a", "b"]
    inner: Inner | None
    parts: list[Inner]
    pair: tuple[int, float]
    ids: tuple[int, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


WHOLE = Outer(
    colour=Colour.RED,
    mode="a",
    inner=None,
    parts=[Inner(name="x"), Inner(name="y", size=2.5)],
    pair=(1, 2.0),
    ids=(3, 4),
    counts={"n": 5},
    options={"deep": [1, {"er": None}]},
)


def test_what_was_written_comes_back() -> None:
    values = json.loads(json.dumps(asdict(WHOLE)))
    back = from_values(Outer, values)
    assert back == WHOLE
    assert isinstance(back.colour, Colour)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"colour": "blue"}, r"Outer\.colour"),
        ({"mode": "c"}, r"Outer\.mode"),
        ({"parts": [{"name": 7}]}, r"Outer\.parts\.name"),
        ({"parts": {"name": "x"}}, r"Outer\.parts"),
        ({"pair": [1]}, r"Outer\.pair must have 2"),
        ({"counts": {"n": True}}, r"Outer\.counts"),
        ({"surprise": 1}, "Outer has no surprise"),
    ],
)
def test_the_place_of_a_misfit_is_named(change: dict[str, Any], place: str) -> None:
    with pytest.raises(Misfit, match=place):
        from_values(Outer, asdict(WHOLE) | change)


def test_later_keys_are_left_out_where_that_is_asked_for() -> None:
    assert from_values(Inner, {"name": "x", "later": 1}, ignores_unknown=True) == Inner(name="x")
    with pytest.raises(Misfit, match="Inner lacks name"):
        from_values(Inner, {"later": 1}, ignores_unknown=True)
