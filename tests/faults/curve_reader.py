"""A client that follows one curve while everything around it breaks."""

import random
import threading
from typing import TYPE_CHECKING

from backends import PROJECT
from faults.trainers import Point, curve_point

from core.services.curves import pages
from core.services.curves.pages import MetricsQuery

if TYPE_CHECKING:
    from faults.world import World


class CurveReader:
    """Follows one curve as a client does, at its own pace."""

    def __init__(self, world: "World", job_id: str) -> None:
        self.job_id = job_id
        self._world = world
        self._points: dict[int, Point] = {}
        self._after = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def finish(self) -> list[Point]:
        self._is_over.set()
        self._thread.join()
        self._read()
        return [self._points[seq] for seq in sorted(self._points)]

    def _follow(self) -> None:
        while not self._is_over.wait(random.uniform(0.05, 0.3)):
            try:
                self._read()
            except Exception:  # noqa: BLE001 - the database may be away, or the job deleted
                continue

    def _read(self) -> None:
        while True:
            page = pages.page(self._world.backend, PROJECT, self.job_id, MetricsQuery(after=self._after, limit=7))
            if page.reset:
                self._points.clear()
            for point in page.points:
                self._points[point.seq] = curve_point(point.stage.value, point.split, point.step, point.values)
            self._after = page.last_seq
            if not page.has_more:
                return
