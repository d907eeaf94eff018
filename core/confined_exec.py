"""`python -I -S confined_exec.py <bounds as JSON> <command …>`: becomes the command, held to the bounds by Landlock.

Standard library only, so that nothing is loaded before the bounds hold. The kernel keeps to them whatever the command
runs: it may read and write what lies under the named folders, opens no TCP connection unless it is told otherwise,
signals only its own children, and cannot look into processes outside of it, its parent's environment included.
"""

import ctypes
import json
import os
import stat
import struct
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The numbers of the system calls, the same on every architecture."""
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_CAPABILITIES = (19, 21, 38)
"""Tracing, administration and performance events: with one of them root reads other processes past Landlock."""
MIN_VERSION = 2
"""The first one would not let anybody rename across folders."""
VERSION_OF_TRUNCATION = 3
VERSION_OF_TCP = 4
VERSION_OF_SCOPES = 6
EXIT_NOT_CONFINED = 125

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_ALL = (1 << 14) - 1  # up to moving between folders
_TCP = 3
_SCOPES = 3  # abstract sockets and signals

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Landlock's version in this kernel; 0: none, or forbidden."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))))


def confine(bounds: "dict[str, list[str]]", *, allows_tcp: bool) -> None:
    """Hold this process, and all that it starts, to `reads`, `lists` (names only) and `writes`. Raises OSError.

    Root keeps the capabilities that it has now until it executes something.
    """
    found = version()
    handled = _ALL | (_TRUNCATE if found >= VERSION_OF_TRUNCATION else 0)
    tcp = _TCP if found >= VERSION_OF_TCP and not allows_tcp else 0
    scopes = _SCOPES if found >= VERSION_OF_SCOPES else 0
    attributes = struct.pack("=QQQ", handled, tcp, scopes)[: 24 if scopes else 16 if found >= VERSION_OF_TCP else 8]
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for name, access in (("reads", _READ), ("lists", _READ_DIR), ("writes", handled)):
            for path in bounds[name]:
                _allow(ruleset, path, access)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        for capability in _CAPABILITIES:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to whoever has none to lose
        _call(_RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    """A path that is not there is passed over."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            access &= _OF_FILES
        _call(_ADD_RULE, ruleset, ctypes.c_int(_PATH_BENEATH), struct.pack("=Qi", access, opened), ctypes.c_uint(0))
    finally:
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


def main() -> int:
    bounds = json.loads(sys.argv[1])
    try:
        confine(bounds, allows_tcp=bounds["allows_tcp"])
    except OSError as error:
        sys.stderr.write(f"not confined, so not started: {error}\n")
        return EXIT_NOT_CONFINED
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
