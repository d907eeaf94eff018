"""PostgreSQL connection that waits for an answer, but not for ever."""

import time
from collections.abc import Generator
from typing import Any

from psycopg import Connection, Cursor, OperationalError

MAX_ANSWER_SECONDS = 20.0
"""More than the server takes before it gives a statement up."""


class PatientConnection(Connection[Any]):
    """Connection with a time limit that the driver lacks: a silent server would block the thread.

    A connection that is given up on is closed: whatever was sent on it may or may not have been done.
    """

    def wait(self, gen: Any, *options: Any, **named_options: Any) -> Any:
        return super().wait(self._limited(gen), *options, **named_options)

    def _limited(self, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run the driver's steps within the limit; it calls several times a second, even without data."""
        deadline = time.monotonic() + MAX_ANSWER_SECONDS
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.close()
                    raise OperationalError("the server does not answer")
                wanted = steps.send(ready)
        except StopIteration as end:
            return end.value


class PatientCursor(Cursor[Any]):
    """Cursor that sends many rows one after the other, not in a pipeline.

    A process frozen inside a pipeline leaves the server between two commands, where none of its limits counts: neither
    that of a statement nor that of an idle transaction. Its locks would stay until the process is gone.
    """

    def executemany(self, query: Any, params_seq: Any, *, returning: bool = False) -> None:
        with self._conn.lock:
            self._conn.wait(self._executemany_gen_no_pipeline(query, params_seq, returning))
