"""Two ranks that load models in shards, beside whole: `python sharded_loads.py <folder>` is their agent, and then each.

`folder` has a folder of a model for each name in `cases.json`, with the changes of its plan.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from core.children.launched import launched_rank, leave, obey_agent
from core.training.launcher import Group, launch
from core.training.model.capabilities import architecture_of, capabilities_of
from core.training.model.loading import UnsupportedModel, open_causal_lm, read_in_place
from core.training.model.policies import PolicySource, load_policy
from core.training.model.sharding import compute_dtype
from core.training.plan import TrainingPlan
from core.training.ranks import Ranks


def compare(plan: TrainingPlan, source: PolicySource, ranks: Ranks) -> None:
    """Check that what is loaded in shards is what is loaded whole, bit for bit."""
    found: list[PreTrainedModel | str] = []
    for size in (1, ranks.size):
        try:
            found.append(load_policy(plan, source, ranks if size > 1 else Ranks()))
        except UnsupportedModel as error:
            found.append(error.detail)
    whole, sharded = found
    if isinstance(whole, str) or isinstance(sharded, str):
        assert whole == sharded
        return
    assert capabilities_of(sharded) == capabilities_of(whole)
    assert architecture_of(sharded) == type(whole).__name__
    assert compute_dtype(sharded) == whole.dtype
    assert sharded.config.to_dict() == whole.config.to_dict()
    kinds = {name: architecture_of(module) for name, module in whole.named_modules()}
    assert {name: architecture_of(module) for name, module in sharded.named_modules()} == kinds
    buffers = dict(sharded.named_buffers())
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffers.pop(name), buffer), name
    assert not buffers
    parameters = dict(sharded.named_parameters())
    for name, parameter in whole.named_parameters():
        part = parameters.pop(name)
        assert isinstance(part, DTensor), name
        assert part.requires_grad == parameter.requires_grad, name
        expected = parameter.float() if parameter.requires_grad else parameter
        assert part.dtype == expected.dtype, name
        assert torch.equal(part.full_tensor(), expected), name
    assert not parameters


def check_in_place(directory: Path) -> None:
    """Check that weights of the files' type lie in a mapping of the file."""
    model = open_causal_lm(directory, dtype=torch.float32, read=read_in_place)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(directory) in line]
    spans = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    for name, parameter in model.named_parameters():
        assert any(first <= parameter.data_ptr() < last for first, last in spans), name


if __name__ == "__main__":
    obey_agent()
    root = Path(sys.argv[1])
    if launched_rank() is None:
        group = Group(run_id="loads", num_ranks=2)
        sys.exit(1 if launch(group, [sys.executable, *sys.argv], root / "agent") else 0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        rank = dist.get_rank()
        for name, case in json.loads((root / "cases.json").read_text()).items():
            plan = TrainingPlan.from_json(case["plan"])
            sft_dir = None if case["sft_dir"] is None else Path(case["sft_dir"])
            try:
                compare(plan, PolicySource(sft_dir), Ranks(rank, 2, rank))
            except BaseException as error:
                error.add_note(name)
                raise
        check_in_place(root / "mistral-fp32")
    finally:
        dist.destroy_process_group()
    leave(0)
