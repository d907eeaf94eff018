"""The stand-in for a value that a file holds in a form that no role of a row can take: a picture, a time, a VARIANT."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Undecoded:
    """Neither null nor a JSON value: the column is there and has a value, which was not decoded."""

    what: str
    """What the value is, and how to write it so that it can be read: 'a time (timestamp[ns]); write it as text'."""
