"""Requests to a service that may be away for a while, as a restart takes."""

import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from preftune import ApiError, ConnectionFailed
from preftune.cli.console import err, out
from preftune.cli.listing import Item

MAX_LOST_SECONDS = 600
POLL_SECONDS = 2.0
AWAY = (502, 503, 504)
"""Statuses of a service that will be back."""

T = TypeVar("T")


def patiently(ask: Callable[[], T], console: Console, pause_seconds: float) -> T:
    """Ask again while the service is away, ten minutes at most, and say so once.

    Raises ConnectionFailed, ApiError as `ask` does.
    """
    deadline = time.monotonic() + MAX_LOST_SECONDS
    is_lost = False
    while True:
        try:
            return ask()
        except (ConnectionFailed, ApiError) as error:
            is_away = isinstance(error, ConnectionFailed) or error.status in AWAY
            if not is_away or time.monotonic() > deadline:
                raise
            if not is_lost:
                console.print(Text(f"{error} Trying again …", "yellow"), soft_wrap=True)
            is_lost = True
            time.sleep(pause_seconds)


def follow(get: Callable[[], Item], told: Callable[[Item], str]) -> Item:
    """Print what is told of something whenever it changes, until it has ended; return it as it is then.

    Raises ConnectionFailed, ApiError as `patiently` does.
    """
    shown = None
    while True:
        item = patiently(get, err, POLL_SECONDS)
        if (now := f"{item['status']}: {told(item)}") != shown:
            out.print(now, markup=False)
            shown = now
        if item["finished_at"] is not None:
            return item
        time.sleep(POLL_SECONDS)
