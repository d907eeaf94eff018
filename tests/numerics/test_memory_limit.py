"""Models that do not fit into one process's memory, trained by two that share them.

Each process is in a control group of its own with a limit. What a full training keeps for a parameter (16 bytes in
float32: weight, gradient, two moments) is divided by two processes, so a limit can be below the optimizer's states or
below the weights, but with two processes of a full training not below the weights alone: the half of 16 bytes is more
than 4. So there are two cases: weights that are too large, with an adapter; and states that are too large, without.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_groups import limit_events, memory_groups
from packed_rows import VOCABULARY
from ranked_runs import run_on_ranks
from safetensors.torch import load_file
from tiny_runs import RecordingObserver, World, random_pairs, tree_bytes, untimed, write_data
from transformers import AutoConfig, AutoModelForCausalLM

from core.training.observer import Stage
from core.training.plan import LoraPlan
from worker.child_environment import CPU_LIBRARIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

MIB = 2**20
LIBRARIES = 350 * MIB
"""Memory of a process with torch and transformers, and what a step takes besides weights."""
SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Case:
    num_layers: int
    lora: LoraPlan | None
    share: float
    """Limit, without what libraries take, as bytes a parameter."""


CASES = {
    "weights": Case(num_layers=36, lora=LoraPlan(rank=4), share=3.0),
    "optimizer": Case(num_layers=22, lora=None, share=10.2),
}


def make_base(directory: Path, num_layers: int) -> int:
    """Write a llama of random float32 weights; return the number of its parameters."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=num_layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(directory)
    return int(sum(parameter.numel() for parameter in model.parameters()))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_two_processes_train_what_one_cannot_hold(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone: a clear error. Two: trained, resumed from the middle to the same bytes, published."""
    for name, value in (CPU_LIBRARIES | {"MALLOC_MMAP_THRESHOLD_": "1048576"}).items():
        monkeypatch.setenv(name, value)
    base = tmp_path / "base"
    num_parameters = make_base(base, case.num_layers)
    limit = LIBRARIES + int(case.share * num_parameters)
    assert limit < (12 if case.lora is None else 4) * num_parameters  # masters and moments, or weights
    rows = random_pairs(4, 1)
    world = World(tmp_path, str(base), write_data(tmp_path / "train", rows), "")
    short: dict[str, Any] = {"sft": None, "validation_data": None, "max_new_tokens": 2, "checkpoint_every_steps": 1}
    plan = world.plan("alone", lora=case.lora, **short)
    with memory_groups(2, limit) as groups:
        if groups is None:
            pytest.skip("no control group with a limit of memory may be made here")
        with pytest.raises(AssertionError, match="The machine has too little memory"):
            run_on_ranks(plan, RecordingObserver(), groups=groups, timeout=SECONDS)
        whole, rest = RecordingObserver(), RecordingObserver()
        started = time.perf_counter()
        two = dataclasses.replace(plan, num_devices=2, work_dir=f"{plan.work_dir}-two")
        result = run_on_ranks(two, whole, groups=groups, timeout=SECONDS)
        seconds = time.perf_counter() - started
        assert ("warning", "not_verified") in whole.events  # the leader alone has no room for the whole
        first = next(ref for ref in whole.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 1))
        resumed = dataclasses.replace(two, work_dir=f"{plan.work_dir}-rest", resume_from=str(first.directory))
        again = run_on_ranks(resumed, rest, groups=groups, timeout=SECONDS)
        assert tree_bytes(again.policy_dir) == tree_bytes(result.policy_dir)
        assert untimed([*whole.points[: -len(rest.points)], *rest.points]) == untimed(whole.points)
        told = [limit_events(groups, number) for number in range(2)]
        assert all(found.get("oom_kill", 0) == 0 for found in told), told
    published = load_file(next(result.policy_dir.glob("*.safetensors")))
    assert sum(tensor.numel() for tensor in published.values()) == num_parameters
    print(  # noqa: T201
        f"{num_parameters / 1e6:.0f} M parameters, limit {limit / MIB:.0f} MiB a process: weights "
        f"{4 * num_parameters / MIB:.0f} MiB, all states {16 * num_parameters / MIB:.0f} MiB; {seconds:.0f} s"
    )
