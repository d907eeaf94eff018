"""What the kernel says of the memory of our control group (version 2)."""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def count_out_of_memory_kills() -> int:
    """Of processes of the group so far; 0 where there is no group to ask."""
    try:
        lines = (_group() / "memory.events").read_text().splitlines()
    except (OSError, IndexError):
        return 0
    counts = dict(line.split() for line in lines)
    return int(counts.get("oom_kill", 0))


def memory_limit_bytes() -> int | None:
    """The lowest one of the group and those around it; None where there is none, or no group to ask."""
    try:
        group = _group()
    except (OSError, IndexError):
        return None
    around = [group, *group.parents[: len(group.relative_to(_ROOT).parts)]]
    return min((limit for folder in around if (limit := _limit_of(folder)) is not None), default=None)


def _limit_of(group: Path) -> int | None:
    try:
        return int((group / "memory.max").read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _group() -> Path:
    own = _OWN.read_text().split("0::", 1)[1].splitlines()[0]
    return _ROOT / own.lstrip("/")
