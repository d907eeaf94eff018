"""Rank of a test's run: `python ranked_process.py <folder>`, started by `ranked_agent.py`."""

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

from tiny_runs import RecordingObserver, stop_at_poll

from core.children.launched import leave, obey_agent
from core.training.failures import TrainingStopped
from core.training.pipeline import TrainingResult
from core.training.plan import TrainingPlan
from core.training.run_on_devices import Member

obey_agent()
folder = Path(sys.argv[1])
task = json.loads((folder / "task").read_text())
member = Member.of_launch()
assert member is not None
outcome: TrainingResult | tuple[bool, bool] | None = None
observer = RecordingObserver(stop_at_poll(task["stop_poll"] or sys.maxsize))
try:
    if member.ranks.is_leader:
        outcome = member.lead(TrainingPlan.from_json(task["plan"]), observer)
    elif member.node:
        member.follow(localise=lambda plan: replace(plan, work_dir=f"{plan.work_dir}-node{member.node}"))
    else:
        member.follow()
except TrainingStopped as stop:
    outcome = (stop.has_checkpoint, stop.is_planned)  # its exception takes no arguments by place, as pickle gives them
if member.ranks.is_leader:
    observer.decide = None
    (folder / "outcome").write_bytes(pickle.dumps((outcome, vars(observer))))
leave(0)
