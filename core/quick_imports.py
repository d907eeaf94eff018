"""Imports without Python's garbage collector, which takes a quarter of the time of loading torch and transformers."""

import gc
import importlib
from types import ModuleType


def import_quickly(name: str) -> ModuleType:
    """Import the module; all that is in memory afterwards is left out of later collections.

    For the start of a process: it makes modules, classes and functions by the hundred thousand, which stay to its end.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
