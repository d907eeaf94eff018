"""Two hosts as network namespaces of this machine, each with a loopback of its own, wired to each other and to here.

Needs root, `ip`, `unshare` and `nsenter`. What both reach stands at `GATEWAY`, in the namespace of the tests. There is
no bridge: where Docker filters what is forwarded, nothing would pass between its ports.
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
_WIRE = "wire"
"""Name of a host's end of the wire between the two."""
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
        """Address at which the other host reaches it."""
        return f"10.77.1.{self.number + 1}"

    @property
    def link(self) -> str:
        """This side's end of its wire to here."""
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
        self._set_wires("down")
        try:
            yield
        finally:
            self._set_wires("up")

    def _set_wires(self, state: str) -> None:
        run("ip", "link", "set", self.link, state)
        run(*self.inside("ip", "link", "set", _WIRE, state))

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
        """What it sends to the other host goes slowly."""
        shape = ("root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms")
        run(*self.inside("tc", "qdisc", "add", "dev", _WIRE, *shape))
        try:
            yield
        finally:
            run(*self.inside("tc", "qdisc", "del", "dev", _WIRE, "root"))


@contextmanager
def make_hosts() -> Iterator[list[Host]]:
    """Skips the test where namespaces are not allowed."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("ip", "unshare", "nsenter")):
        pytest.skip("network namespaces need root, ip, unshare and nsenter")
    holders: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(2):
            holders.append(_hold_namespace())
        hosts = [Host(number=number, pid=holder.pid) for number, holder in enumerate(holders)]
        _wire(*hosts)
        yield hosts
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


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


def _wire(one: Host, other: Host) -> None:
    ends = [("name", _WIRE, "netns", str(host.pid)) for host in (one, other)]
    made = subprocess.run(
        ["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no wire can be made here: {made.stderr.strip()}")
    for host in (one, other):
        outside = f"10.77.0.{host.number + 2}"
        run("ip", "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        run("ip", "addr", "add", GATEWAY, "peer", f"{outside}/32", "dev", host.link)
        run("ip", "link", "set", host.link, "up")
        for words in (
            ("addr", "add", outside, "peer", f"{GATEWAY}/32", "dev", "eth0"),
            ("addr", "add", f"{host.address}/24", "dev", _WIRE),
            *(("link", "set", name, "up") for name in ("lo", "eth0", _WIRE)),
        ):
            run(*host.inside("ip", *words))


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
