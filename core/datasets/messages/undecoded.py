"""Placeholder for a value in a form that no role of a row can take: a picture, a time, a VARIANT."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A value that was not decoded: neither null nor a JSON value."""

    what: str
    """What the value is, and how to write it so that it can be read: 'a time (timestamp[ns]); write it as text'."""
