"""What a step spends on telling: forming its figures, sending the metric point, announcing a checkpoint.

    python benchmarks/bench_callbacks.py

The real observer of the trainer process writes to a real pipe, which this script empties as the supervisor would.
Prints microseconds per call, processor and wall time, medians; compare with the seconds of a step. The writing of a
checkpoint is the engine's own work and is timed apart: 1.5 GB of master weights and AdamW states, as SmolLM2-135M has.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch

from core.domain.training import metric_names
from core.training.checkpoints.tensor_files import complete_directory, write_tensors
from core.training.observer import CheckpointRef, MetricPoint, Stage
from core.training.steps.figures import PairColumn, pair_figures
from worker.processes.trainer.observer import LinkObserver
from worker.processes.trainer.supervisor_link import SupervisorLink
from worker.processes.trainer.timeline import Timeline

CALLS = 2000
NUM_PAIRS = 64
STATE_FLOATS = 3 * 134_515_008


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        target = Path(work, "result.json")
        child = subprocess.Popen([sys.executable, __file__, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        num_bytes = sum(len(line) for line in child.stdout)  # standard input stays open: its end would end the child
        if child.wait():
            sys.exit("the child failed")
        print(json.dumps(json.loads(target.read_text()) | {"bytes_sent": num_bytes}, indent=1))


def measure(target: Path) -> None:
    link = SupervisorLink()
    observer = LinkObserver(
        link, [], lambda _: "", complete_policy=lambda _: None, shares_outputs=False, timeline=Timeline("cpu")
    )
    values = np.random.default_rng(0).normal(size=(len(PairColumn), NUM_PAIRS))
    figures = pair_figures(values) | {metric_names.GRAD_NORM: 1.0, metric_names.TOKENS_PER_SECOND: 500.0}
    point = MetricPoint(stage="dpo", split="train", step=1, epoch=0.5, values=figures)
    checkpoint = CheckpointRef(directory=Path("/nowhere"), stage=Stage.DPO, step=1)
    result = {
        "figures": microseconds(lambda: pair_figures(values)),
        "metric_point": microseconds(lambda: observer.point(point)),
        "stop_requested": microseconds(observer.stop_requested),
        "checkpoint_announced": microseconds(lambda: observer.checkpoint(checkpoint)),
        "checkpoint_written_seconds": write_seconds(),
    }
    target.write_text(json.dumps(result))


def microseconds(call: Callable[[], object]) -> dict[str, float]:
    wall, processor = [], []
    for _ in range(CALLS):
        wall_before, before = perf_counter(), process_time()
        call()
        processor.append(process_time() - before)
        wall.append(perf_counter() - wall_before)
    return {"processor": 1e6 * statistics.median(processor), "wall": 1e6 * statistics.median(wall)}


def write_seconds() -> dict[str, float]:
    """On the disk with the temporary files, flushed."""
    tensors = {str(i): torch.ones(STATE_FLOATS // 30) for i in range(30)}
    with tempfile.TemporaryDirectory() as work:
        wall_before, before = perf_counter(), process_time()
        with complete_directory(Path(work, "checkpoint")) as hidden:
            write_tensors(hidden / "policy.safetensors", tensors)
        return {"processor": process_time() - before, "wall": perf_counter() - wall_before}


if __name__ == "__main__":
    measure(Path(sys.argv[1])) if sys.argv[1:] else main()
