"""Wall time and memory of one checkpoint of several ranks, beside another revision of this repository.

`bench_rank_checkpoints.py <revision>`. Layers of a plain model are sharded by FSDP2 over two processes (CPU, gloo),
with AdamW's masters and moments; nothing is trained. What is timed is the write into the work directory, to the disk
(fsync); the upload is the worker's. Memory is the peak of each process (VmHWM) without what its libraries hold before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RANK = """
import json, resource, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from core.training.checkpoints.files import Checkpoint, write_checkpoint
from core.training.data.order import Cursor
from core.training.observer import Stage
from core.training.plan import SftPlan
from core.training.ranks import Ranks
from core.training.steps.optimizer import MasterOptimizer

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name + ":"))) / 1024

folder, rank, size, width, depth = Path(sys.argv[1]), *map(int, sys.argv[2:])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
ranks = Ranks(rank, size, local_rank=rank)
libraries = status("VmRSS")
mesh = init_device_mesh("cpu", (size,))
with torch.device("meta"):
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
for layer in (*model, model):
    fully_shard(layer, mesh=mesh)
model.to_empty(device="cpu")
with torch.no_grad():
    for parameter in model.parameters():
        parameter.to_local().normal_()
optimizer = MasterOptimizer(dict(model.named_parameters()), SftPlan(epochs=1, learning_rate=1e-3, batch_size=1), ranks)
for tensor in optimizer.state().values():
    tensor.normal_()
held = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
dist.barrier()
started = time.perf_counter()
make = getattr(optimizer, "parts", None) or optimizer.whole
tensors = {"policy": make(optimizer.masters), "optimizer": make(optimizer.state())}
checkpoint = Checkpoint(
    stage=Stage.DPO, step=1, cursor=Cursor(), run_digest="x", versions={}, micro_batch_tokens=1, tensors=tensors
)
if hasattr(optimizer, "parts"):
    write_checkpoint(folder / "checkpoints", checkpoint, ranks)
elif ranks.is_leader:
    write_checkpoint(folder / "checkpoints", checkpoint)
dist.barrier()
seconds = time.perf_counter() - started
facts = {"seconds": seconds, "held_mib": held - libraries, "peak_mib": status("VmHWM") - libraries}
(folder / f"facts-{rank}.json").write_text(json.dumps(facts))
dist.destroy_process_group()
"""


def checkpoint(tree: Path, scratch: Path, num_ranks: int, width: int, depth: int) -> dict[str, float]:
    """Write one checkpoint with the code of a tree; return its seconds, and MiB of the largest and of all processes."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        command = [sys.executable, "-P", "-c", RANK, name]
        environment = os.environ | {"PYTHONPATH": str(tree), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        shape = [str(num_ranks), str(width), str(depth)]
        ranks = [subprocess.Popen([*command, str(rank), *shape], env=environment) for rank in range(num_ranks)]
        codes = [rank.wait(timeout=900) for rank in ranks]
        if any(codes):
            raise SystemExit("a rank failed")
        facts = [json.loads((folder / f"facts-{rank}.json").read_text()) for rank in range(num_ranks)]
    return {
        "seconds": max(fact["seconds"] for fact in facts),
        "largest_peak_mib": max(fact["peak_mib"] for fact in facts),
        "sum_of_peaks_mib": sum(fact["peak_mib"] for fact in facts),
        "sum_held_mib": sum(fact["held_mib"] for fact in facts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="the other revision of this repository")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--depth", type=int, default=16, help="layers; 16 of width 4096 are 268 million parameters")
    parser.add_argument("--rounds", type=int, default=3, help="in turn")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as other:
        archive = subprocess.run(
            ["git", "archive", options.revision, "core"], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", other], input=archive.stdout, check=True)
        found: dict[str, list[dict[str, float]]] = {"other": [], "this": []}
        for _ in range(options.rounds):
            for name, tree in (("other", Path(other)), ("this", ROOT)):
                found[name].append(checkpoint(tree, options.scratch, options.ranks, options.width, options.depth))
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for name, runs in found.items()
    }
    ratios = {key: round(value / medians["other"][key], 2) for key, value in medians["this"].items()}
    facts = {"parameters": options.width**2 * options.depth, "ranks": options.ranks, "load": os.getloadavg()[0]}
    print(json.dumps({"revision": options.revision, **facts, **medians, "this/other": ratios}, indent=1))


if __name__ == "__main__":
    main()
