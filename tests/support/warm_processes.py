"""Child processes that are forked from one that has loaded their modules: a trainer starts at once, not in seconds.

In a block of `warm`, modules of the service start their children so, where they are among `PROGRAMS`. Each is a child
of this process with arguments, environment, pipes, session and confinement of its own; only the interpreter's start is
left out, which other tests see to (tests/README.md). `PREFTUNE_TESTS_FRESH=1` starts every process anew.
"""

import atexit
import contextlib
import ctypes
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import confined_exec
from core.datasets.check import check_process
from worker.child_environment import trainer_environment

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
PROCESS_NAME = "forks"
"""As the kernel knows a process that forks: no worker's child in the sense of any test."""
CHECKS, SERVICE, TORCH, GROUP, HOST = "checks", "service", "torch", "group", "host"
"""What a process that forks has loaded. `HOST` has all that a worker of a host starts, agents and their ranks (`GROUP`)
too: those are forked below it only."""
NETWORK = "PREFTUNE_TESTS_NETWORK"
"""In the environment of a program: process whose network namespace it is to enter; it is forked from `HOST` then."""
_FORKED_BY = {SERVICE: (CHECKS, SERVICE), HOST: (CHECKS, SERVICE, TORCH, GROUP)}
PROGRAMS = {
    ("core.datasets.check",): CHECKS,
    ("cli.main", "serve"): SERVICE,
    ("cli.main", "api"): SERVICE,
    ("cli.main", "worker"): SERVICE,
    ("cli.main", "migrate"): SERVICE,
    ("cli.child", "api"): SERVICE,
    ("cli.child", "worker"): SERVICE,
    ("toy_serve.py",): SERVICE,
    ("toy_worker.py",): SERVICE,
    ("tiny_worker.py",): SERVICE,
    ("fault_worker.py",): SERVICE,
    ("toy_trainer.py",): SERVICE,
    ("worker.processes.start", "trainer"): TORCH,
    ("worker.processes.start", "scoring"): TORCH,
    ("worker.processes.start", "responses"): TORCH,
    ("worker.processes.start", "republication"): TORCH,
    ("worker.processes.start", "device_group"): GROUP,
}
"""Module or script, its first argument where that matters, and what has to be loaded for it."""
_START_NONE = ("core.datasets.check", "toy_trainer.py")
"""Programs of which none starts processes of its own that are worth forking."""
_OF_TORCH = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_")
_LOADED_WITH = {
    CHECKS: ("ARROW_DEFAULT_MEMORY_POOL", "OPENBLAS_NUM_THREADS"),
    SERVICE: (),
    TORCH: _OF_TORCH,
    GROUP: _OF_TORCH,
    HOST: (),
}
"""What libraries read of the environment once: a child that is given something else starts anew."""
_PR_SET_CHILD_SUBREAPER = 36
_MAX_ANSWER_BYTES = 64
_IS_WANTED = sys.platform == "linux" and "PREFTUNE_TESTS_FRESH" not in os.environ


_num_blocks: Counter[types.ModuleType] = Counter()
_starts_anew = threading.Event()


@contextlib.contextmanager
def warm(*modules: types.ModuleType) -> Iterator[None]:
    """Make modules that use `subprocess.Popen` fork what they can until the end of the block."""
    for module in modules if _IS_WANTED else ():
        _num_blocks[module] += 1
        vars(module)["subprocess"] = WARM_SUBPROCESS
    try:
        yield
    finally:
        for module in modules if _IS_WANTED else ():
            _num_blocks[module] -= 1
            if not _num_blocks[module]:
                vars(module)["subprocess"] = subprocess


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """Start every process anew until the end of the block: for tests of what a start does."""
    _starts_anew.set()
    try:
        yield
    finally:
        _starts_anew.clear()


@dataclass(frozen=True, kw_only=True)
class Program:
    kind: str
    name: str
    """Of a module, or the path of a script."""
    title: str
    """Name by which the kernel knows the process, for whoever looks for it."""
    arguments: Sequence[str]
    bounds: str | None
    """As `core.confined_exec` is given them."""
    starts_processes: bool


def recognise(command: Sequence[object]) -> Program | None:
    """The program of a command, which may be confined; None for what is not among `PROGRAMS`."""
    words, bounds = [str(word) for word in command], None
    if words[1:4] == ["-I", "-S", str(Path(confined_exec.__file__).resolve())]:
        bounds, words = words[4], words[5:]
    options = ["-m", "-P"]
    if words[0] != sys.executable or len(words) == 1:
        return None
    name, *arguments = [word for place, word in enumerate(words) if place > 2 or word not in options][1:]
    short = Path(name).name if name.endswith(".py") else name
    words = next((key for key in ((short,), (short, *arguments[:1])) if key in PROGRAMS), None)
    if words is None:
        return None
    kind = PROGRAMS[words]
    starts = kind in (SERVICE, GROUP) and short not in _START_NONE
    return Program(kind=kind, name=name, title=words[-1], arguments=arguments, bounds=bounds, starts_processes=starts)


class WarmPopen(subprocess.Popen[bytes]):
    """As `subprocess.Popen`; programs that `recognise` knows are forked."""

    def _execute_child(self, *values: Any) -> None:
        start = super()._execute_child  # type: ignore[misc]
        given = inspect.signature(start).bind(*values).arguments
        environment = dict(os.environ if given["env"] is None else given["env"])
        is_plain = not (_starts_anew.is_set() or given["shell"] or given["preexec_fn"] or given["uid"])
        program = recognise(given["args"]) if is_plain and _IS_WANTED else None
        is_elsewhere = NETWORK in environment
        forking = None if program is None else find_forking(HOST if is_elsewhere else program.kind, environment)
        if program is None or forking is None:
            start(*values)
            return
        order = {
            "name": program.name,
            "title": program.title,
            "arguments": program.arguments,
            "bounds": program.bounds,
            "folder": str(given["cwd"] or Path.cwd()),
            "environment": environment,
            "starts_processes": program.starts_processes,
            "ends_with_parent": not _is_forked.is_set(),
            "passed": list(given["pass_fds"]),
            "has_own_session": bool(given["start_new_session"]),
        }
        ends = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        standard = [number if end == -1 else end for number, end in enumerate(ends)]
        self.pid = forking.start(order, [*standard, *given["pass_fds"]])
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))  # type: ignore[attr-defined]


WARM_SUBPROCESS = types.ModuleType("subprocess")
vars(WARM_SUBPROCESS).update(vars(subprocess) | {"Popen": WarmPopen})


class Forking:
    """A process that forks at our word (`forking_process.py`); what it forks becomes our child."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def launch(cls, kind: str) -> "Forking":
        """Start one; it ends with this process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", str(SUPPORT / "forking_process.py"), kind, str(theirs.fileno())],
                env=_environment(kind),
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,
                pass_fds=(theirs.fileno(),),
            )

        def end() -> None:
            ours.close()
            process.wait()

        atexit.register(end)
        return cls(ours)

    def start(self, order: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Return the id of a process that carries the order out with these as 0, 1 and 2."""
        with _asking, _adopting():
            socket.send_fds(self._connection, [json.dumps(order).encode()], descriptors)
            answer = self._connection.recv(_MAX_ANSWER_BYTES)
        assert answer, "the process that forks is gone"
        return int(answer)


_forking: dict[str, Forking] = {}
_launching = threading.Lock()
_asking = threading.Lock()
"""One at a time, of whatever kind: who adopts is a fact of the whole process."""
_is_forked = threading.Event()


def find_forking(kind: str, environment: Mapping[str, str]) -> Forking | None:
    """The process that forks children with such an environment; None where there is none."""
    loaded_with = _environment(kind)
    if any(environment.get(name) != loaded_with.get(name) for name in _LOADED_WITH[kind]):
        return None
    with _launching:
        if kind not in _forking and kind != GROUP and not _is_forked.is_set():
            _forking[kind] = Forking.launch(kind)
        return _forking.get(kind)


def be_forked(inner: Forking, kind: str) -> None:
    """In a process that was forked from one of a kind: from now on it has this one, which has loaded the same."""
    _is_forked.set()
    _forking.clear()
    _forking.update(dict.fromkeys(_FORKED_BY[kind], inner))


def _environment(kind: str) -> dict[str, str]:
    """What its libraries are loaded with."""
    if kind in (TORCH, GROUP, HOST):
        found = trainer_environment(Path(tempfile.gettempdir()), num_threads=1)
    else:
        found = check_process._child_environment()
        found["PYTHONDONTWRITEBYTECODE"] = ""
    return found | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS, SUPPORT))), "PYTHONUTF8": "1"}


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Meanwhile a process below us whose parent ends becomes our child."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
