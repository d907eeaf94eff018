"""Bounds on child processes that read what others made: their own folder, the interpreter, and nothing else.

Trainer, scorer, converter and the check of uploads read foreign files with large libraries. One that is taken over by
such a file should not find the settings, the keys or other projects' data. Linux's Landlock holds it, without
privileges, from 5.19 on; elsewhere, and with `PREFTUNE_CONFINE_CHILDREN=false`, children have the user's rights.
"""

import json
import logging
import os
import site
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core import confined_exec

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/proc", "/sys", "/nix/store", "/run/opengl-driver")
_SYSTEM_FILES = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "localtime",
    "timezone",
    "passwd",
    "group",
    "nsswitch.conf",
    "hosts",
    "host.conf",
    "gai.conf",
    "resolv.conf",
    "os-release",
    "mime.types",
)
"""Files of /etc, which may hold secrets of other services too."""
_DEVICES = "/dev"
_HELD_FROM = (
    (confined_exec.VERSION_OF_TRUNCATION, "cutting off files that the user may write (held from Linux 6.2 on)"),
    (confined_exec.VERSION_OF_TCP, "TCP connections (held from Linux 6.7 on)"),
    (confined_exec.VERSION_OF_SCOPES, "signals to other processes and abstract sockets (held from Linux 6.12 on)"),
)
_log = logging.getLogger(__name__)  # structlog takes a third of the start of the check of an upload
_is_off = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one child may reach beyond the interpreter, its packages and the system's libraries."""

    writes: Sequence[Path]
    """Folders that are its own."""
    reads: Sequence[Path] = ()
    allows_tcp: bool = False
    """Several processes that train together speak over loopback."""


def start(*, is_wanted: bool) -> None:
    """Say once, at a process's start, whether its children will be confined."""
    if not is_wanted:
        _is_off.set()
        _log.warning("children_not_confined: PREFTUNE_CONFINE_CHILDREN is off")
        return
    _is_off.clear()
    if lack := find_lack():
        _log.warning("children_not_confined: %s", lack)
    elif gaps := find_gaps():
        _log.warning("children_confined_in_part: not held: %s", "; ".join(gaps))


def find_lack() -> str | None:
    """Why this machine cannot confine, in words for an operator; None: it can."""
    found = confined_exec.version()
    if found >= confined_exec.MIN_VERSION:
        return None
    if found:
        return "this kernel's Landlock is too old; Linux 5.19 has what it takes"
    return "no Landlock here: it needs Linux 5.19 with it among its security modules, and seccomp that allows it"


def find_gaps() -> list[str]:
    """What this kernel's Landlock does not hold and a newer one does, in words for an operator."""
    found = confined_exec.version()
    return [what for version, what in _HELD_FROM if found < version]


def confined(command: Sequence[str], bounds: Bounds) -> list[str]:
    """The command, started within the bounds; unchanged where that is off or the kernel cannot."""
    if _is_off.is_set() or find_lack() is not None:
        return list(command)
    own = [_DEVICES, *(str(path.resolve()) for path in bounds.writes)]
    given = [*(str(path.resolve()) for path in bounds.reads), *_script_folder(command)]
    reads, lists = _interpreter()
    told = {"reads": [*reads, *given], "lists": lists, "writes": own, "allows_tcp": bounds.allows_tcp}
    script = str(Path(confined_exec.__file__).resolve())
    return [sys.executable, "-I", "-S", script, json.dumps(told), *command]


def _script_folder(command: Sequence[str]) -> list[str]:
    """The folder of a program that is named by its file."""
    return [str(Path(word).resolve().parent) for word in command[1:2] if word.endswith(".py") and Path(word).is_file()]


def _interpreter() -> tuple[list[str], list[str]]:
    """(folders that are read whole, folders of which only the names are): Python, its packages, our own code.

    The root of a checkout, or whatever else is on the path beside installed packages, may hold settings and data:
    only packages and modules in it are read.
    """
    reads = [sys.prefix, sys.base_prefix, *_SYSTEM, *(f"/etc/{name}" for name in _SYSTEM_FILES)]
    reads += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    lists = []
    for folder in _code_folders():
        if _is_installed(folder):
            reads.append(str(folder))
        else:
            lists.append(str(folder))
            reads += [str(path) for path in _modules(folder)]
    return [path for path in reads if path and path != "/"], lists


def _code_folders() -> list[Path]:
    named = [*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    folders = [Path(__file__).parents[1], *(Path(name) for name in named if name)]
    return list(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))


def _is_installed(folder: Path) -> bool:
    homes = [Path(sys.prefix), Path(sys.base_prefix), *map(Path, site.getsitepackages())]
    return folder.name in ("site-packages", "dist-packages") or any(folder.is_relative_to(home) for home in homes)


def _modules(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            yield path
