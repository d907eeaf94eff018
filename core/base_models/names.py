"""Names of base models, which are also names of folders."""

import re
from typing import Final

from core.base_models.errors import InvalidModelName

MAX_NAME_LENGTH: Final = 96
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_RESERVED: Final = ("job_", "ds_")
"""Prefixes of ids: `base_model` may also name a tuned policy."""


def check_name(name: str) -> str:
    """Check a name; raises InvalidModelName for anything that is not a plain name."""
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name) or name.startswith(_RESERVED):
        raise InvalidModelName(
            f"A base model's name is at most {MAX_NAME_LENGTH} of a-z, 0-9, `.`, `_` and `-`, starts with a letter or "
            "digit and not like an id (`job_`); it is neither a path nor a URL."
        )
    return name
