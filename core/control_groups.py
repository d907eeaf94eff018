"""Limits and figures of this process's control group (version 2, of memory also version 1) and of those around it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED = 2**60
"""Limits from here on are none: how version 1 says it depends on the size of a page."""


class _MemoryFiles(NamedTuple):
    """Where a version says what a group may take, and takes."""

    limit: str
    used: str
    kills: str
    caches: tuple[str, ...]
    """Entries of `memory.stat`, groups below included."""


_VERSION_1 = _MemoryFiles(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.oom_control",
    ("total_inactive_file", "total_active_file"),
)
_VERSION_2 = _MemoryFiles("memory.max", "memory.current", "memory.events", ("inactive_file", "active_file"))


def count_out_of_memory_kills() -> int:
    """Count processes of the group killed so far for lack of memory; 0 without a readable group."""
    for group, files in _memory_groups():
        return _table(group / files.kills).get("oom_kill", 0)
    return 0


def memory_limit_bytes() -> int | None:
    """Return the lowest memory limit of the group and those around it; None without any."""
    limits = [_limit(group, files) for group, files in _memory_groups()]
    return min((limit for limit in limits if limit is not None), default=None)


def free_memory_bytes() -> int | None:
    """Return the least that is left below a memory limit of the group or those around it; None without a limit.

    Cached files count as free: the system takes their memory back.
    """
    free = []
    for group, files in _memory_groups():
        limit, used = _limit(group, files), _number(group / files.used)
        if limit is not None and used is not None:
            figures = _table(group / "memory.stat")
            free.append(limit - max(0, used - sum(figures.get(name, 0) for name in files.caches)))
    return min(free, default=None)


def num_cores() -> int | None:
    """Return the processor cores of the lowest quota of the group and those around it; None without a quota."""
    quotas = []
    for group in _groups():
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdecimal() and period.strip().isdecimal():
            quotas.append(max(1, round(int(quota) / int(period))))
    return min(quotas, default=None)


def _memory_groups() -> Iterator[tuple[Path, _MemoryFiles]]:
    """Yield the groups that count memory as `_groups` does: where both versions are in use, one of them has none."""
    is_counted_by_1 = any(":memory:" in line for line in _read(_OWN).splitlines())
    controller, files = ("memory", _VERSION_1) if is_counted_by_1 else ("", _VERSION_2)
    yield from ((group, files) for group in _groups(controller))


def _groups(controller: str = "") -> Iterator[Path]:
    """Yield the process's own group, then those around it, up to the root; none where there are no groups.

    The root comes last: in a container it is the container's own group.

    Args:
        controller: of version 1; "": groups of version 2.
    """
    _, found, own = _read(_OWN).partition(f":{controller}:")
    if not found:
        return
    root = _ROOT / controller
    group = root / own.splitlines()[0].lstrip("/")
    yield group
    yield from group.parents[: len(group.relative_to(root).parts)]


def _limit(group: Path, files: _MemoryFiles) -> int | None:
    found = _number(group / files.limit)
    return None if found is None or found >= _UNLIMITED else found


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None  # no such file, or "max"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
