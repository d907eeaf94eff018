"""Failpoints strike at the pass they name, and not at all unless they are set."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import failpoints


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def strikes(name: str) -> bool:
    try:
        failpoints.reach(name)
    except OSError as error:
        return error.errno == errno.ENOSPC
    return False


def test_nothing_happens_unless_set() -> None:
    failpoints.arm("")
    assert not any(strikes("a.b") for _ in range(3))


def test_one_pass_or_all_from_one_on() -> None:
    failpoints.arm("a.b=enospc@2;c.d=enospc@2+;e.f=enospc")
    assert [strikes("a.b") for _ in range(4)] == [False, True, False, False]
    assert [strikes("c.d") for _ in range(4)] == [False, True, True, True]
    assert [strikes("e.f") for _ in range(3)] == [True, False, False]
    assert not strikes("g.h")


def test_every_point_can_be_noted(tmp_path: Path) -> None:
    failpoints.arm(f"*=note:{tmp_path / 'notes'}")
    for name in ("a.b", "c.d", "a.b"):
        failpoints.reach(name)
    assert (tmp_path / "notes").read_text().split() == ["a.b", "c.d", "a.b"]


@pytest.mark.parametrize("text", ["a.b", "a.b=burn", "=kill", "a.b=kill@x", "a.b=kill@"])
def test_what_is_no_failpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="PREFTUNE_FAILPOINTS"):
        failpoints.parse(text)
