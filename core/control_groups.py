"""Limits and figures of this process's control group (version 2) and of the groups around it."""

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def count_out_of_memory_kills() -> int:
    """Count processes of the group killed so far for lack of memory; 0 without a readable group."""
    for group in _groups():
        counts = dict(line.split() for line in _read(group / "memory.events").splitlines())
        return int(counts.get("oom_kill", 0))
    return 0


def memory_limit_bytes() -> int | None:
    """Return the lowest memory limit of the group and those around it; None without any."""
    return min((limit for group in _groups() if (limit := _number(group / "memory.max")) is not None), default=None)


def free_memory_bytes() -> int | None:
    """Return the least that is left below a memory limit of the group or those around it; None without a limit."""
    free = []
    for group in _groups():
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            free.append(limit - used)
    return min(free, default=None)


def num_cores() -> int | None:
    """Return the processor cores of the lowest quota of the group and those around it; None without a quota."""
    quotas = []
    for group in _groups():
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdecimal() and period.strip().isdecimal():
            quotas.append(max(1, round(int(quota) / int(period))))
    return min(quotas, default=None)


def _groups() -> Iterator[Path]:
    """Yield the process's own group, then those around it, up to the root; none where there are no groups.

    The root comes last: in a container it is the container's own group.
    """
    _, found, own = _read(_OWN).partition("0::")
    if not found:
        return
    group = _ROOT / own.splitlines()[0].lstrip("/")
    yield group
    yield from group.parents[: len(group.relative_to(_ROOT).parts)]


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None  # no such file, or "max"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
