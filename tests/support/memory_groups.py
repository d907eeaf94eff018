"""Control groups with a limit of memory, for tests; of version 2 or 1, below the group of the test's own process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_groups(num_groups: int, limit_bytes: int) -> Iterator[str | None]:
    """Yield the path of so many groups without the number at its end, `-0` and so on; None where none may be made.

    What is written to files counts, and is given back when the limit is near. Nothing is swapped.
    """
    parent, limits = _parent()
    prefix = parent / f"preftune-test-{uuid4().hex[:8]}"
    made: list[Path] = []
    try:
        try:
            for number in range(num_groups):
                group = Path(f"{prefix}-{number}")
                group.mkdir()
                made.append(group)
                (group / limits[0]).write_text(str(limit_bytes))
                for name in limits[1:]:
                    if (group / name).exists():
                        (group / name).write_text(str(limit_bytes) if "bytes" in name else "0")
        except OSError:
            yield None
        else:
            yield str(prefix)
    finally:
        for group in made:
            group.rmdir()


def _parent() -> tuple[Path, tuple[str, ...]]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            own = _ROOT / "memory" / path.lstrip("/")
            found = own if own.is_dir() else _ROOT / "memory"
            return found, ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    return _ROOT, ("memory.max", "memory.swap.max")


def limit_events(prefix: str, number: int) -> dict[str, int]:
    """Return how often a group was at its limit and how many of its processes were ended there, where it is told."""
    group = Path(f"{prefix}-{number}")
    found: dict[str, int] = {}
    for name in ("memory.events", "memory.oom_control"):
        if os.path.exists(group / name):
            rows = (line.split() for line in (group / name).read_text().splitlines())
            found |= {key: int(value) for key, value in rows}
    return found
