"""Results of a long benchmark's parts, one file each, so that a later run goes on behind the last one."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def end_cleanly() -> None:
    """Make SIGTERM end this process as Ctrl-C does, with what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class TimeIsOver(SystemExit):
    """Raised before a part that would begin after the time that was given."""


class Parts:
    """Parts that are done, in a folder."""

    def __init__(self, folder: Path, max_minutes: float | None = None) -> None:
        self.folder = folder
        self._end = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def claim(self, work: Mapping[str, Any]) -> None:
        """Note what is run here. Exits where the folder holds parts of something else."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "work.json"
        if path.exists() and json.loads(path.read_text()) != work:
            sys.exit(f"{path} says that the parts there are of other data, settings or code; name another folder")
        write_json(path, work)

    def find(self, name: str) -> dict[str, Any] | None:
        """Return a part's result; None before it is done."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def take(self, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the part's result, from the folder or by running it. Raises TimeIsOver."""
        known = self.find(name)
        if known is not None:
            return known
        if self._end is not None and time.monotonic() > self._end:
            raise TimeIsOver(f"the time is over before {name}; started again with these arguments, it goes on there")
        load, started, earlier = os.getloadavg()[0], time.monotonic(), self._seconds_of_pieces(name)
        result = run()
        seconds = earlier + time.monotonic() - started
        found = result | {"load_average_before": round(load, 1), "seconds": round(seconds, 1)}
        write_json(self.folder / f"{name}.json", found)
        shutil.rmtree(self._pieces(name), ignore_errors=True)
        print(f"  {name}: {found['seconds']:.0f} s", flush=True)
        return found

    def piece(self, part: str, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a piece of a part, kept until the part is done: a part that was killed goes on behind its last one."""
        path = self._pieces(part) / f"{name}.json"
        if not path.exists():
            started = time.monotonic()
            found = run()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"found": found, "seconds": round(time.monotonic() - started, 1)})
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["found"]
        return kept

    def _pieces(self, part: str) -> Path:
        return self.folder / "pieces" / part

    def _seconds_of_pieces(self, part: str) -> float:
        """Return what the pieces of an earlier run took."""
        return float(sum(json.loads(path.read_text())["seconds"] for path in self._pieces(part).glob("*.json")))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
