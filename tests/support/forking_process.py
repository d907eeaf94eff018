"""A process that has loaded what programs need and forks them: `python forking_process.py <kind> <descriptor>`.

It is asked by `warm_processes.Forking`, has one thread and no connection but that one, and ends with it. Between it and
a program there is one more process, which ends at once, so that the program is passed on to the process that asked.
"""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from typing import Any, NoReturn

from botocore.loaders import JSONFileLoader
from warm_processes import (
    CHECKS,
    HOST,
    NETWORK,
    PROCESS_NAME,
    SERVICE,
    TORCH,
    WARM_SUBPROCESS,
    Forking,
    WarmPopen,
    be_forked,
)

from core import confined_exec, failpoints
from core.quick_imports import import_quickly
from core.storage.s3 import S3Access, S3ObjectStore

_AGENT_STARTER = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"
"""Module of torch that starts the ranks of an agent."""
MODULES = {
    CHECKS: ("core.datasets.check.child",),
    SERVICE: (
        "core.datasets.check.child",
        "api.server",
        "worker.app",
        "cli.main",
        "cli.serve",
        "worker.processes.trainer.supervisor_link",
    ),
    TORCH: (
        "worker.processes.trainer.__main__",
        "worker.processes.scoring",
        "worker.processes.responses",
        "worker.processes.republication",
        "transformers.models.llama.modeling_llama",
    ),
    HOST: (
        "worker.app",
        "cli.processes",
        "worker.processes.trainer.__main__",
        "worker.processes.device_group",
        "transformers.models.llama.modeling_llama",
        _AGENT_STARTER,
    ),
}
STARTERS = ("core.datasets.check.check_process", "worker.attempt.trainer_process", "worker.light.lane", "cli.processes")
"""Modules of the service that start processes."""
_MAX_ORDER_BYTES = 1 << 18
_MAX_DESCRIPTORS = 16
_FREE_DESCRIPTORS = 200
"""Numbers from here on are nobody's."""
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def main(kind: str, descriptor: int) -> None:
    connection = socket.socket(fileno=descriptor)
    for name in MODULES[kind]:
        import_quickly(name)
    if kind in (SERVICE, HOST):
        _know_s3()
    gc.freeze()  # what is there now is not copied by collections in what is forked
    serve(connection, kind)


def serve(connection: socket.socket, kind: str) -> NoReturn:
    """Fork until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
    with contextlib.suppress(OSError):  # who asked was killed
        while (asked := socket.recv_fds(connection, _MAX_ORDER_BYTES, _MAX_DESCRIPTORS))[0]:
            connection.send(_fork(connection, asked[0], asked[1], kind))
    os._exit(0)


def _fork(connection: socket.socket, text: bytes, descriptors: list[int], kind: str) -> bytes:
    """Return the id of the process that carries out an order."""
    reader, writer = os.pipe()
    if (between := os.fork()) == 0:
        between = os.getpid()
        if os.fork():
            os._exit(0)
        for unneeded in (connection.detach(), reader):
            os.close(unneeded)
        _carry_out(json.loads(text) | {"kind": kind}, descriptors, writer, between)
    os.close(writer)
    os.waitpid(between, 0)  # from here on the program is a child of who asked
    pid = os.read(reader, 64)
    for done in (reader, *descriptors):
        os.close(done)
    return pid


def _know_s3() -> None:
    """Every S3 client reads the same megabytes of descriptions; a forked process has them from its birth."""
    JSONFileLoader.load_file = staticmethod(functools.cache(JSONFileLoader().load_file))  # type: ignore[method-assign]
    S3ObjectStore(S3Access(bucket="none", endpoint_url="http://127.0.0.1:1"))


def _carry_out(order: dict[str, Any], descriptors: list[int], writer: int, between: int) -> NoReturn:
    """Become the program, and say so once it is in its session and folder."""
    code = 1
    try:
        while os.getppid() == between:  # with whose end a program that dies with its parent would be killed
            time.sleep(0.0005)
        if order["ends_with_parent"]:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _take_over(order, descriptors, writer)
        if order["bounds"] is not None:
            bounds = json.loads(order["bounds"])
            confined_exec.confine(bounds, allows_tcp=bounds["allows_tcp"])
        if order["starts_processes"]:
            _have_a_forking_process(order["kind"])  # within the same bounds
        _run(order["name"], order["arguments"])
        code = 0
    except SystemExit as end:
        code = _code_of(end)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - it must not go on as the process that forks
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _take_over(order: dict[str, Any], descriptors: list[int], writer: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, order["title"].encode(), 0, 0, 0)
    if holder := order["environment"].pop(NETWORK, None):
        _enter_network(holder)
    atexit._clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ends = (writer, *descriptors)
    writer, *moved = [fcntl.fcntl(end, fcntl.F_DUPFD, _FREE_DESCRIPTORS) for end in ends]
    for end in ends:
        os.close(end)
    for descriptor, number in zip(moved, (0, 1, 2, *order["passed"]), strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if order["has_own_session"]:
        os.setsid()
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    tempfile.tempdir = None
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=bool(os.environ.get("PYTHONUNBUFFERED")))  # type: ignore[union-attr]
    os.write(writer, str(os.getpid()).encode())
    os.close(writer)


def _enter_network(holder: str) -> None:
    """Enter the network namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    opened = os.open(f"/proc/{holder}/ns/net", os.O_RDONLY)
    if libc.setns(opened, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")
    os.close(opened)


def _have_a_forking_process(kind: str) -> None:
    """Fork one for the children of the program, before it has threads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        os.setsid()  # signals to the program's group are not for it
        for descriptor in (0, 1):
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        serve(theirs, kind)
    theirs.close()
    be_forked(Forking(ours), kind)
    for name in STARTERS:
        vars(importlib.import_module(name))["subprocess"] = WARM_SUBPROCESS
    if kind == HOST:
        vars(importlib.import_module(_AGENT_STARTER))["Popen"] = WarmPopen


def _run(name: str, arguments: list[str]) -> None:
    sys.argv = [name, *arguments]
    warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
    if name.endswith(".py"):
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def _code_of(end: SystemExit) -> int:
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        return 1
    return end.code or 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
