"""The short way for the most frequent row: one line that is beyond doubt a pair of texts about which nothing is to say.

What it takes, the long way (`json_rows`, the explicit layout, `judgement`) would accept without a remark, at three
times the cost. Whatever it is not sure of it leaves to the long way.
"""

from typing import Final

import orjson

from core.datasets.options import CheckOptions
from core.datasets.rows.contents import Contents
from core.datasets.rows.context import PLACEHOLDERS
from core.datasets.rows.json_rows import num_strings_in
from core.datasets.rows.judgement import is_nearly_identical
from core.datasets.rows.rendered import RENDERED_MARKS
from core.domain.dataset_rows import DatasetKind

_NUM_STRINGS: Final = 6
"""Three names, each with its text."""
_BRACKETS: Final = ("[", "{")
"""A text that begins so may be messages."""
_MARKS: Final = (*RENDERED_MARKS, *PLACEHOLDERS)


def are_expected(options: CheckOptions, layout_name: str) -> bool:
    return layout_name == "explicit" and options.kind is DatasetKind.PREFERENCE and not options.columns


def read_plain_pair(line: bytes) -> Contents | None:
    """Of a line that is within the limits on its length, and escapes no NUL."""
    if any(map(line.__contains__, _MARKS)):
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
    if chosen[:1] in _BRACKETS or rejected[:1] in _BRACKETS or prompt[:1] in _BRACKETS:
        return None
    if not prompt or not chosen or not rejected or prompt.isspace() or chosen.isspace() or rejected.isspace():
        return None
    if chosen == rejected or is_nearly_identical(chosen, rejected):
        return None
    return Contents(prompt, chosen, rejected)
