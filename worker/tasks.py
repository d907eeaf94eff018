"""The Celery task of a wake-up; the database decides whether there is work and what is claimed."""

import logging
from collections.abc import Callable

from celery import Celery

from core.domain.errors import Unavailable
from core.queue.celery_app import WAKE_TASK

_log = logging.getLogger(__name__)


def register(app: Celery, run_queued: Callable[[], None]) -> None:
    @app.task(name=WAKE_TASK, ignore_result=True)
    def wake(*_arguments: object, **_named: object) -> None:
        try:
            run_queued()
        except Unavailable as error:
            _log.warning("woken, but cannot look for jobs: %s", error.detail)
