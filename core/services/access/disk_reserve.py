"""Disk reserve of the service: below it nothing new is taken in, while running jobs may end."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.domain.errors import OutOfSpace
from core.settings import Settings


class DiskReserveReached(OutOfSpace):
    code = "disk-reserve-reached"
    title = "The service's disk is down to its reserve"


@dataclass(frozen=True, kw_only=True)
class Room:
    what: str
    """`data` (database, scratch space) or `objects` (a store in a folder)."""
    free_bytes: int
    reserve_bytes: int

    @property
    def is_reached(self) -> bool:
        return self.free_bytes < self.reserve_bytes


def room_of(settings: Settings) -> list[Room]:
    """Return the free space of each disk that the service writes to; one that cannot be read is left out."""
    folders = {"data": settings.data_dir}
    url = urlsplit(settings.effective_storage_url)
    if url.scheme == "file":
        folders["objects"] = Path(unquote(url.path))
    found = []
    for what, folder in folders.items():
        free = _free(folder)
        if free is not None:
            found.append(Room(what=what, free_bytes=free, reserve_bytes=settings.disk_reserve_bytes))
    return found


def require_disk(settings: Settings, num_bytes: int, what: str) -> None:
    """Check that so many bytes more leave the reserve of every disk. Raises DiskReserveReached."""
    for room in room_of(settings):
        if room.free_bytes - num_bytes >= room.reserve_bytes:
            continue
        raise DiskReserveReached(
            f"There is no room for {what}: the disk of the service's {room.what} has {room.free_bytes:,} bytes free, "
            f"of which {room.reserve_bytes:,} are a reserve (PREFTUNE_DISK_RESERVE_BYTES). Running jobs continue. "
            "Delete datasets or finished jobs, which gives room back within a minute, or ask the operator for space.",
            free_bytes=room.free_bytes,
            reserve_bytes=room.reserve_bytes,
            disk=room.what,
        )


def _free(folder: Path) -> int | None:
    """Return the free bytes where the folder is, or is to be made."""
    try:
        there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
        return shutil.disk_usage(there).free
    except (OSError, StopIteration):
        return None
