"""Memory figures of our control group (version 2)."""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def count_out_of_memory_kills() -> int:
    """Count processes of the group killed so far for lack of memory; 0 without a readable group."""
    try:
        lines = (_group() / "memory.events").read_text().splitlines()
    except (OSError, IndexError):
        return 0
    counts = dict(line.split() for line in lines)
    return int(counts.get("oom_kill", 0))


def memory_limit_bytes() -> int | None:
    """Return the lowest limit of the group and its ancestors; None without any."""
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
