"""Models that are loaded in shards, straight from their files: bit for bit what is loaded whole and cut afterwards."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_rows import CONFIGS, make_model
from tiny_runs import World

from core.training.model.adapters import adapter_files, adapters
from core.training.model.loading import save_policy
from core.training.plan import LoraPlan, RewardPlan, TrainingPlan

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def cases(folder: Path, plan: TrainingPlan) -> Iterator[tuple[str, TrainingPlan, Path | None]]:
    """Every architecture with and without an adapter; files of another type than computing; later stages; rewards."""
    lora = LoraPlan()
    for architecture in CONFIGS:
        base = folder / f"{architecture}-fp32"
        save_policy(make_model(architecture), base)
        here = dataclasses.replace(plan, base_model_dir=str(base))
        yield architecture, here, None
        yield f"{architecture} in bf16, LoRA", dataclasses.replace(here, precision="bf16", lora=lora), None
    for architecture in ("llama", "gemma"):
        base = folder / f"{architecture}-bf16"
        save_policy(make_model(architecture), base, dtype=torch.bfloat16)
        here = dataclasses.replace(plan, base_model_dir=str(base))
        yield f"{architecture} of bf16, LoRA", dataclasses.replace(here, lora=lora), None
        yield f"{architecture} of bf16 in bf16", dataclasses.replace(here, precision="bf16"), None
    yield "from SFT", dataclasses.replace(plan, base_model_dir=str(folder / "llama-fp32")), folder / "qwen2-fp32"
    adapted, settings = make_model("llama"), adapters.LoraConfig(rank=16, alpha=32.0)
    adapters.inject(adapted, settings, seed=3)
    for _, adapter in adapters.adapters(adapted):
        torch.nn.init.normal_(adapter.lora_B, generator=torch.Generator().manual_seed(5))
    adapter_files.save_adapter(adapted, settings, folder / "adapter")
    head = RewardPlan(epochs=1, learning_rate=1e-3, batch_size=4)
    reward: dict[str, Any] = {"method": "reward", "sft": None, "dpo": None, "reward": head, "pad_token_id": 1}
    for stored in ("fp32", "bf16"):
        here = dataclasses.replace(plan, base_model_dir=str(folder / f"llama-{stored}"))
        yield f"from the adapter of SFT, {stored}", dataclasses.replace(here, lora=lora), folder / "adapter"
        rewards = dataclasses.replace(here, **reward, sample_prompts=())
        yield f"reward model, {stored}", rewards, None
        yield f"reward model with LoRA, {stored}", dataclasses.replace(rewards, lora=lora), None


@pytest.mark.timeout(300)
def test_shards_are_those_of_the_whole(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    found = {
        name: {"plan": plan.to_json(), "sft_dir": None if start is None else str(start)}
        for name, plan, start in cases(tmp_path, world.plan("none"))
    }
    (tmp_path / "cases.json").write_text(json.dumps(found))
    path = os.pathsep.join(map(str, (SUPPORT.parents[1], SUPPORT)))
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "sharded_loads.py"), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stderr=subprocess.PIPE,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
