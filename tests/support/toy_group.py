"""The trainers of a node for fault tests: `python toy_group.py <work dir>`, in the place of torch's agent.

Node 0 runs the toy trainer. The others hold a connection to it, write a file of every checkpoint, and fail when the
connection breaks, as trainers do that wait for each other.
"""

import os
import socket
import sys
import threading
from pathlib import Path
from typing import TextIO

from toy_trainer import State, ToyTrainer

from core.domain.trainer_protocol import ASSIGNMENT_FILE, Assignment, CheckpointWritten, Failed, Hello, Listening
from worker.processes.trainer.supervisor_link import SupervisorLink

BROKEN = "An unexpected error in the trainer: the connection to another node is broken."
_END = "end"


class Leader(ToyTrainer):
    """The toy trainer, which tells the other nodes of its checkpoints."""

    def __init__(self, work_dir: Path) -> None:
        super().__init__(work_dir)
        self._others: list[socket.socket] = []
        self._lines: list[TextIO] = []
        self._watchers: list[threading.Thread] = []

    def meet(self) -> None:
        assignment = self.assignment
        with socket.create_server((assignment.meeting_address, assignment.meeting_port)) as server:
            self.link.send(Listening(port=server.getsockname()[1]))
            while len(self._others) < assignment.num_nodes - 1:
                connection, _ = server.accept()
                lines = connection.makefile("r")
                if lines.readline().strip() != assignment.run_token:  # of another attempt
                    connection.close()
                    continue
                self._others.append(connection)
                self._lines.append(lines)
        self._watchers = [threading.Thread(target=self._watch, args=(lines,), daemon=True) for lines in self._lines]
        for watcher in self._watchers:
            watcher.start()

    def tell(self, word: str) -> None:
        for other in self._others:
            other.sendall(f"{word}\n".encode())

    def end(self) -> None:
        """Tell the others that the run is over, and wait until they have heard it."""
        self.tell(_END)
        for watcher in self._watchers:
            watcher.join()

    def _watch(self, lines: TextIO) -> None:
        """Fail when another node goes before the end."""
        if lines.readline().strip() != _END:
            self.link.send(Failed(code="internal", detail=BROKEN))
            os._exit(1)

    def _checkpoint(self, stage: str, state: State) -> None:
        is_new = self._checkpointed != (stage, state.step)
        super()._checkpoint(stage, state)
        if is_new:
            self.tell(f"{stage} {state.step}")


def follow(work_dir: Path, assignment: Assignment) -> int:
    link = SupervisorLink()
    link.send(Hello(pid=os.getpid(), versions={"toy": "1"}, device=assignment.device))
    print(f"node {assignment.node} of the toy group", file=sys.stderr, flush=True)  # noqa: T201
    with socket.create_connection((assignment.meeting_address, assignment.meeting_port)) as connection:
        connection.sendall(f"{assignment.run_token}\n".encode())
        for line in connection.makefile("r"):
            if line.strip() == _END:
                connection.sendall(f"{_END}\n".encode())
                return 0
            stage, step = line.split()
            directory = work_dir / "checkpoints" / f"{stage}-{step}"
            directory.mkdir(parents=True)
            (directory / f"weights-of-node-{assignment.node}.bin").write_text(line)
            link.send(CheckpointWritten(directory=str(directory), stage=stage, step=int(step)))
    link.send(Failed(code="internal", detail=BROKEN))
    return 1


def main(work_dir: Path) -> int:
    assignment = Assignment.load((work_dir / ASSIGNMENT_FILE).read_text())
    (work_dir / "resumed").write_text(str(sorted(os.listdir(assignment.resume_from)) if assignment.resume_from else ""))
    if assignment.node > 0:
        return follow(work_dir, assignment)
    leader = Leader(work_dir)
    leader.meet()
    leader.run()
    leader.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
