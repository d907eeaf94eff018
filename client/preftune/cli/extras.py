"""Lazy import of what takes long to load, or is not installed everywhere."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from preftune.cli.console import fail

WORKER: Final = "preftune-service[worker]"
"""What installs the service with all that a worker needs."""


def from_extra(
    module: str, name: str, requirement: str = WORKER, *, load: Callable[[str], ModuleType] = import_module
) -> Any:
    """Return the attribute `name` of `module`, or exit with a sentence on what to install."""
    try:
        return getattr(load(module), name)
    except ModuleNotFoundError as error:
        fail(f"this command needs a package that is not installed ({error.name}): pip install '{requirement}'")
