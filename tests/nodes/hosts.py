"""Two hosts as network namespaces of this machine, each with a loopback of its own, wired to each other and to here.

Needs root, `ip`, `tc`, `unshare` and `nsenter`. What both reach stands at `GATEWAY`, in the namespace of the tests.
There is no bridge: where Docker filters what is forwarded, nothing would pass between its ports.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from toy_jobs import children_of
from warm_processes import NETWORK, WarmPopen

GATEWAY = "10.77.0.1"
MAX_PAIRS = 100
_WIRE, _UPLINK = "wire", "eth0"
"""Names of a host's end of the wire between the two, and of that to here."""
_TOOLS = ("ip", "tc", "unshare", "nsenter")
ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests" / "support" / "tiny_worker.py"


class NoHosts(Exception):
    """Raised where no network namespaces can be made; the text says why."""


@dataclass
class Host:
    pair: int
    number: int
    """Place in the pair."""
    pid: int
    """Process that holds the namespace."""

    @property
    def address(self) -> str:
        """Address at which the other host reaches it."""
        return f"10.77.{1 + self.pair}.{self.number + 1}"

    @property
    def outside(self) -> str:
        """Address of its end of the wire to here."""
        return f"10.77.0.{2 + 2 * self.pair + self.number}"

    @property
    def link(self) -> str:
        """This side's end of its wire to here."""
        return f"pf-host{2 * self.pair + self.number}"

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--net", *command]

    def start_worker(self, environment: Mapping[str, str], log: Path, *, is_forked: bool) -> "subprocess.Popen[bytes]":
        """Start the service's own worker in this namespace; forked: without the seconds of loading its modules."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
        kept |= environment | {"PREFTUNE_NODE_ADDRESS": self.address}
        command = [sys.executable, str(WORKER)]
        with log.open("ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            if is_forked:
                kept |= {NETWORK: str(self.pid)}
                return WarmPopen(command, env=kept, cwd=log.parent, start_new_session=True, **streams)
            kept |= {"PYTHONPATH": str(ROOT)}
            return subprocess.Popen(self.inside(*command), env=kept, cwd=log.parent, start_new_session=True, **streams)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nothing comes in or goes out."""
        with self.offline(), self.unwired():
            yield

    @contextmanager
    def offline(self) -> Iterator[None]:
        """It reaches nothing here, and the other host still."""
        run("ip", "link", "set", self.link, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", self.link, "up")

    @contextmanager
    def unwired(self) -> Iterator[None]:
        """Neither host reaches the other, and both reach what is here."""
        run(*self.inside("ip", "link", "set", _WIRE, "down"))
        try:
            yield
        finally:
            run(*self.inside("ip", "link", "set", _WIRE, "up"))

    def deaf_to(self, other: "Host", kind: str = "blackhole") -> AbstractContextManager[None]:
        """What it sends to the other host is lost (`blackhole`) or refused (`prohibit`); what that sends arrives."""
        return self._losing(other.address, kind)

    def mute(self) -> AbstractContextManager[None]:
        """What it sends here is lost; what is sent to it arrives."""
        return self._losing(GATEWAY, "blackhole")

    @contextmanager
    def _losing(self, address: str, kind: str) -> Iterator[None]:
        # Metric 0 is that of the route of the wire itself, which is therefore replaced and put back.
        before = subprocess.run(
            self.inside("ip", "route", "show", f"{address}/32"), capture_output=True, text=True, check=True
        ).stdout.split()
        run(*self.inside("ip", "route", "replace" if before else "add", kind, f"{address}/32"))
        try:
            yield
        finally:
            run(*self.inside("ip", "route", "del", kind, f"{address}/32"))
            if before:
                run(*self.inside("ip", "route", "add", *before))

    @contextmanager
    def slow(self, rate: str, *, is_uplink: bool) -> Iterator[None]:
        """What it sends to the other host, or here, goes slowly."""
        device = _UPLINK if is_uplink else _WIRE
        shape = ("root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms")
        run(*self.inside("tc", "qdisc", "add", "dev", device, *shape))
        try:
            yield
        finally:
            run(*self.inside("tc", "qdisc", "del", "dev", device, "root"))


@cache
def find_lack() -> str | None:
    """Say why no hosts can be made here, in words for whoever runs the tests; None where they can."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in _TOOLS):
        return f"network namespaces need root, {', '.join(_TOOLS)}"
    try:
        with make_hosts(MAX_PAIRS - 1):
            return None
    except NoHosts as error:
        return str(error)


@contextmanager
def make_hosts(pair: int = 0) -> Iterator[list[Host]]:
    """Make a pair of hosts, which end with the context, and with this process.

    Args:
        pair: number below `MAX_PAIRS`; pairs that are there at once differ in it.

    Raises:
        NoHosts: namespaces or wires are not allowed here.
    """
    with ExitStack() as stack:
        hosts = [Host(pair=pair, number=number, pid=stack.enter_context(_namespace())) for number in range(2)]
        _wire(*hosts)
        yield hosts


@contextmanager
def _namespace() -> Iterator[int]:
    """Give the process that holds a network namespace."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo up; read _"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            raise NoHosts("no network namespace can be made here")
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def _wire(one: Host, other: Host) -> None:
    ends = [("name", _WIRE, "netns", str(host.pid)) for host in (one, other)]
    made = subprocess.run(
        ["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise NoHosts(f"no wire can be made here: {made.stderr.strip()}")
    for host in (one, other):
        run("ip", "link", "add", host.link, "type", "veth", "peer", "name", _UPLINK, "netns", str(host.pid))
        run("ip", "addr", "add", GATEWAY, "peer", f"{host.outside}/32", "dev", host.link)
        run("ip", "link", "set", host.link, "up")
        for words in (
            ("addr", "add", host.outside, "peer", f"{GATEWAY}/32", "dev", _UPLINK),
            ("addr", "add", f"{host.address}/24", "dev", _WIRE),
            *(("link", "set", name, "up") for name in ("lo", _UPLINK, _WIRE)),
        ):
            run(*host.inside("ip", *words))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def below(pid: int) -> list[tuple[str, int]]:
    """All processes of a worker, each with its part: `worker`, `agent` (its child), `rank` (the agent's)."""
    agents = children_of(pid)
    ranks = [rank for agent in agents for rank in children_of(agent)]
    return [("worker", pid), *(("agent", agent) for agent in agents), *(("rank", rank) for rank in ranks)]
