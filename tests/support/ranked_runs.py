"""Runs on several ranks, for tests of the engine: launched, led and followed as the trainer does it.

`ranked_agent.py` is the agent of a node, `ranked_process.py` each rank.
"""

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from tiny_runs import RecordingObserver

from core.training.failures import TrainingStopped
from core.training.pipeline import TrainingResult
from core.training.plan import TrainingPlan

SUPPORT = Path(__file__).resolve().parent


def run_on_ranks(
    plan: TrainingPlan,
    observer: RecordingObserver,
    *,
    stop_poll: int | None = None,
    num_nodes: int = 1,
    groups: str | None = None,
    timeout: float = 200.0,
) -> TrainingResult:
    """Run the plan on `plan.num_devices` processes; the observer gets what the leader's has heard.

    Args:
        stop_poll: poll from which on the leader's observer asks to stop with a checkpoint.
        num_nodes: agents that share the ranks.
        groups: begin of the names of control groups, one for each rank of a node, that it runs in.
        timeout: of the whole, in seconds.

    Raises:
        TrainingStopped: it did.
    """
    folder = Path(f"{plan.work_dir}-launch")
    folder.mkdir(parents=True)
    port = free_port() if num_nodes > 1 else 0
    task = {"plan": plan.to_json(), "stop_poll": stop_poll, "run_id": uuid4().hex, "num_nodes": num_nodes, "port": port}
    (folder / "task").write_text(json.dumps({**task, "groups": groups}))
    path = [str(SUPPORT.parents[1]), str(SUPPORT.parent), str(SUPPORT)]
    agents = [
        subprocess.Popen(
            [sys.executable, str(SUPPORT / "ranked_agent.py"), str(folder), str(node)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for node in range(num_nodes)
    ]
    logs = [agent.communicate(timeout=timeout)[1].decode() for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * num_nodes, "\n".join(logs)
    outcome, heard = pickle.loads((folder / "outcome").read_bytes())
    vars(observer).update(heard)
    if isinstance(outcome, tuple):
        raise TrainingStopped(has_checkpoint=outcome[0], is_planned=outcome[1])
    assert isinstance(outcome, TrainingResult)
    return outcome


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
