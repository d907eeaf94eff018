"""Check of a data file on this machine. Needs what the API needs; imported through `from_extra`."""

import tempfile
from pathlib import Path
from typing import Any

from core.domain.dataset_rows import DatasetKind
from core.domain.errors import DomainError
from core.services.datasets import intake
from core.settings import SettingsError, load_settings
from preftune.cli.console import fail
from preftune.cli.words import as_options

_MODES = ("reject", "skip")
_TIES = ("keep", "drop")


def check_locally(file: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the result as plain values. Wrong usage exits with code 2, a file that cannot be checked with 1."""
    kinds = [kind.value for kind in DatasetKind]
    if asked["kind"] not in kinds:
        fail(f"--kind must be {', '.join(kinds)}, not {asked['kind']!r}", code=2)
    if asked["on_error"] not in _MODES:
        fail(f"--on-error must be {' or '.join(_MODES)}, not {asked['on_error']!r}", code=2)
    if asked["ties"] not in _TIES:
        fail(f"--ties must be {' or '.join(_TIES)}, not {asked['ties']!r}", code=2)
    try:
        settings = load_settings()
    except SettingsError as error:
        fail(str(error), code=2)
    options = intake.check_options({**asked, "content_encoding": None, "filename": file.name}, settings)
    with tempfile.TemporaryDirectory(prefix="preftune-check-") as folder:
        try:
            return intake.check(settings, file, options, Path(folder)).to_json()
        except DomainError as error:
            fail(as_options(error.detail), code=2 if error.kind == "invalid" else 1)
