"""Check of a data file on this machine. Needs what the API needs; imported through `from_extra`."""

import tempfile
from pathlib import Path
from typing import Any

from core.domain.dataset_rows import DatasetKind
from core.domain.errors import DomainError
from core.services.datasets import intake
from core.settings import SettingsError, load_settings
from preftune.cli.console import fail

_MODES = ("reject", "skip")
_TIES = ("keep", "drop")


def check_locally(file: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the result as plain values. Misuse exits with code 2, a file that cannot be checked with 1."""
    kinds = [kind.value for kind in DatasetKind]
    if asked["kind"] not in kinds:
        fail(f"--kind is one of {', '.join(kinds)}", code=2)
    if asked["on_error"] not in _MODES:
        fail(f"--on-error is one of {', '.join(_MODES)}", code=2)
    if asked["ties"] not in _TIES:
        fail(f"--ties is one of {', '.join(_TIES)}", code=2)
    try:
        settings = load_settings()
    except SettingsError as error:
        fail(str(error), code=2)
    options = intake.check_options({**asked, "content_encoding": None, "filename": file.name}, settings)
    with tempfile.TemporaryDirectory(prefix="preftune-check-") as folder:
        try:
            return intake.check(settings, file, options, Path(folder)).to_json()
        except DomainError as error:
            fail(error.detail, code=2 if error.kind == "invalid" else 1)
