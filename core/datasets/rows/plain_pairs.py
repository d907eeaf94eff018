"""Fast path for the most frequent row: a line that is certainly a plain pair of texts without remarks.

What it takes, the long way (`json_rows`, the explicit layout, `judgement`) would accept without a remark, at three
times the cost. Whatever it is not sure of it leaves to the long way.
"""

import re
from typing import Final

import orjson

from core.datasets.cells.json_rows import num_strings_in
from core.datasets.options import CheckOptions
from core.datasets.rows.contents import Contents
from core.datasets.rows.context import PLACEHOLDERS
from core.datasets.rows.judgement import is_nearly_identical
from core.datasets.rows.rendered import RENDERED_MARKS
from core.domain.dataset_rows import DatasetKind

_NUM_STRINGS: Final = 6
"""Three names, each with its text."""
_SIGNS: Final = (b"<", b">", b"[", b"\\", b"#")
_BRACKETS: Final = "[{"
"""First characters of a text that may be messages."""
MARKS: Final = (*RENDERED_MARKS, *PLACEHOLDERS)
"""Without any of these, a line holds no text that was rendered, and no place of a picture."""
_UNSIGNED: Final = tuple(mark for mark in MARKS if not any(sign in mark for sign in _SIGNS))
_ANY_UNSIGNED: Final = re.compile(b"|".join(map(re.escape, sorted(_UNSIGNED))))


def are_expected(options: CheckOptions, layout_name: str) -> bool:
    return layout_name == "explicit" and options.kind is DatasetKind.PREFERENCE and not options.columns


def marks_in(data: bytes) -> tuple[bytes, ...]:
    """Return which of the marks occur in many lines, searched at once since most files have none.

    A single byte is found ten times as fast as several.
    """
    absent = [sign for sign in _SIGNS if sign not in data]
    wanted = [mark for mark in MARKS if mark not in _UNSIGNED and not any(sign in mark for sign in absent)]
    if _ANY_UNSIGNED.search(data):
        wanted += _UNSIGNED
    return tuple([mark for mark in wanted if mark in data])


def read_plain_pair(line: bytes, marks: tuple[bytes, ...]) -> Contents | None:
    """Read a pair from a line within the length limits and without an escaped NUL; None if it has any of `marks`."""
    for mark in marks:
        if mark in line:
            return None
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if type(row) is not dict or len(row) != 3 or num_strings_in(line) != _NUM_STRINGS:
        return None
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if not (type(prompt) is type(chosen) is type(rejected) is str):
        return None
    if not prompt or not chosen or not rejected or prompt.isspace() or chosen.isspace() or rejected.isspace():
        return None
    if chosen[0] in _BRACKETS or rejected[0] in _BRACKETS or prompt[0] in _BRACKETS:
        return None
    if chosen == rejected or is_nearly_identical(chosen, rejected):
        return None
    return Contents(prompt, chosen, rejected)
