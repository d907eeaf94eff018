"""Hosts as network namespaces of this machine, joined by a bridge: each has an address and a loopback of its own.

Needs root, `ip`, `unshare` and `nsenter`. What all hosts reach stands at `GATEWAY`, in the namespace of the tests.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

GATEWAY = "10.77.0.1"
_BRIDGE = "pf-bridge"
ROOT = Path(__file__).resolve().parents[2]
_WORKER = (
    "import sys; from core.settings import load_settings; from worker.app import run; sys.exit(run(load_settings()))"
)


@dataclass
class Host:
    number: int
    pid: int
    """Process that holds the namespace."""
    worker: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number + 2}"

    @property
    def link(self) -> str:
        """The bridge's end of its wire."""
        return f"pf-host{self.number}"

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--net", *command]

    def start_worker(self, settings: Mapping[str, object], log: Path) -> None:
        """Start the service's own worker in this namespace."""
        assert self.worker is None or self.worker.poll() is not None
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
        environment |= {f"PREFTUNE_{name.upper()}": str(value) for name, value in settings.items()}
        with log.open("ab") as output:
            self.worker = subprocess.Popen(
                self.inside(sys.executable, "-c", _WORKER),
                env=environment | {"PYTHONPATH": str(ROOT), "PREFTUNE_NODE_ADDRESS": self.address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
            )

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nothing comes in or goes out."""
        run("ip", "link", "set", self.link, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", self.link, "up")

    @contextmanager
    def deaf_to(self, other: "Host", kind: str = "blackhole") -> Iterator[None]:
        """What it sends to the other host is lost (`blackhole`) or refused (`prohibit`); what that sends arrives."""
        run(*self.inside("ip", "route", "add", kind, f"{other.address}/32"))
        try:
            yield
        finally:
            run(*self.inside("ip", "route", "del", kind, f"{other.address}/32"))

    @contextmanager
    def slow(self, rate: str = "4mbit") -> Iterator[None]:
        """What it gets comes slowly."""
        run("tc", "qdisc", "add", "dev", self.link, "root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms")
        try:
            yield
        finally:
            run("tc", "qdisc", "del", "dev", self.link, "root")


@contextmanager
def make_hosts(count: int) -> Iterator[list[Host]]:
    """Skips the test where namespaces or bridges are not allowed."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("ip", "unshare", "nsenter")):
        pytest.skip("network namespaces need root, ip, unshare and nsenter")
    holders: list[subprocess.Popen[bytes]] = []
    try:
        _make_bridge()
        for number in range(count):
            holders.append(_hold_namespace())
            _wire(Host(number=number, pid=holders[-1].pid))
        yield [Host(number=number, pid=holder.pid) for number, holder in enumerate(holders)]
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
        subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True, check=False)


def _make_bridge() -> None:
    made = subprocess.run(["ip", "link", "add", _BRIDGE, "type", "bridge"], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no bridge can be made here: {made.stderr.strip()}")
    run("ip", "addr", "add", f"{GATEWAY}/24", "dev", _BRIDGE)
    run("ip", "link", "set", _BRIDGE, "up")


def _hold_namespace() -> subprocess.Popen[bytes]:
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo up; exec sleep infinity"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != b"up\n":
        pytest.skip("no network namespace can be made here")
    return holder


def _wire(host: Host) -> None:
    run("ip", "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    run("ip", "link", "set", host.link, "master", _BRIDGE, "up")
    for words in (("link", "set", "lo", "up"), ("addr", "add", f"{host.address}/24", "dev", "eth0")):
        run(*host.inside("ip", *words))
    run(*host.inside("ip", "link", "set", "eth0", "up"))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def descendants(pid: int) -> list[int]:
    """All processes below one, by /proc."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    todo: Sequence[int] = parents.get(pid, [])
    while todo:
        found += todo
        todo = [child for parent in todo for child in parents.get(parent, [])]
    return found
