"""Agent of one node of a test's run: `python ranked_agent.py <folder> <node>`."""

import json
import sys
from pathlib import Path

from core.training.launcher import Group, launch

folder, node = Path(sys.argv[1]), int(sys.argv[2])
task = json.loads((folder / "task").read_text())
num_nodes = task["num_nodes"]
num_ranks = json.loads(task["plan"])["num_devices"] // num_nodes
group = Group(run_id=task["run_id"], num_ranks=num_ranks, num_nodes=num_nodes, node=node, port=task["port"])
command = [sys.executable, str(Path(__file__).with_name("ranked_process.py")), str(folder)]
if task["groups"] is not None:  # before it holds any memory
    enter = (
        "import os, sys\n"
        "with open(f'{sys.argv[1]}-{os.environ[\"LOCAL_RANK\"]}/cgroup.procs', 'w') as group:\n"
        "    group.write(str(os.getpid()))\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = [sys.executable, "-c", enter, task["groups"], *command]
sys.exit(1 if launch(group, command, folder / f"agent-{node}") else 0)
