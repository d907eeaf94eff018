"""The trainer's end of the pipes to its supervisor. Standard library only, so that any trainer can use it.

A trainer must not outlive its supervisor: at the end of its standard input, or when its parent dies, the whole process
group is killed.
"""

import os
import queue
import signal
import sys
import threading
from typing import BinaryIO, NoReturn

from core.children.parent import die_with_parent
from core.domain.trainer_protocol import (
    StageOutputAnswer,
    StageOutputQuery,
    Stop,
    StopMode,
    TrainerMessage,
    decode_supervisor_message,
    encode_message,
)
from core.failpoints import reach


class SupervisorLink:
    """Sends messages, receives requests and answers."""

    def __init__(self) -> None:
        self.stop_mode: StopMode | None = None
        """What the supervisor has asked for last; to be looked at between steps."""
        self._answers: queue.Queue[StageOutputAnswer] = queue.Queue()
        self._lock = threading.Lock()
        self._output = _take_standard_output()
        # A parent that died before this line has closed our standard input, which is noticed all the same.
        die_with_parent()
        signal.signal(signal.SIGTERM, self._on_terminate)
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    def send(self, message: TrainerMessage) -> None:
        with self._lock:
            self._output.write(encode_message(message))
            self._output.flush()
        reach("trainer.message_sent")

    def ask(self, query: StageOutputQuery) -> StageOutputAnswer:
        """Ask for an equal stage's finished output and wait; the supervisor's death ends the wait."""
        self.send(query)
        return self._answers.get()

    def _on_terminate(self, _number: int, _frame: object) -> None:
        self.stop_mode = self.stop_mode or "checkpoint"

    def _listen(self) -> None:
        try:
            # Unbuffered: at Python's end, a reader of sys.stdin would hold a lock that is wanted there.
            pipe = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - for as long as the process lives
            while line := pipe.readline():
                message = decode_supervisor_message(line)
                if isinstance(message, Stop):
                    self.stop_mode = message.mode
                else:
                    self._answers.put(message)
        finally:
            _end_group()


def _take_standard_output() -> BinaryIO:
    """Reserve standard output for the supervisor; what libraries print goes to the log."""
    sys.stdout.flush()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return output


def _end_group() -> NoReturn:
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(70)
