"""Lazy import of what a client-only installation lacks: the service and the trainer."""

import importlib
from typing import Any

from cli.console import fail


def from_extra(module: str, name: str, extra: str = "worker") -> Any:
    """Return the attribute `name` of `module`, or exit with a sentence on which extra to install."""
    try:
        return getattr(importlib.import_module("core.quick_imports").import_quickly(module), name)
    except ModuleNotFoundError as error:
        fail(f"this command needs the {extra} extra ({error.name} is missing): pip install 'preftune[{extra}]'")
