"""What is saved loads in plain transformers and gives the trained policy's log-probabilities: every way out.

float32: within 1e-4 for a response's sum. Policy, merged weights, adapter, and the policy of every checkpoint.
bfloat16, in which both compute with three digits: within 0.003 nats a token, on average over a response.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import RecordingObserver
from trained_shapes import SHAPES, make_plan
from transformers import AutoModelForCausalLM

from core.training.data.encoded import EncodedData
from core.training.model.adapters import adapter_files
from core.training.model.loading import load_causal_lm
from core.training.observer import Stage
from core.training.pipeline import TrainingResult, run
from core.training.plan import LoraPlan, TrainingPlan

TOLERANCE = 1e-4
BF16_TOKEN_TOLERANCE = 3e-3


@torch.no_grad()
def plain_logps(model: Any, data: EncodedData) -> np.ndarray:
    """[N, 2] sums, by transformers alone, one sequence at a time."""
    sums = np.zeros((len(data), 2))
    for index in range(len(data)):
        row = data.row(index)
        for side, response in enumerate((row.first, row.second)):
            ids = torch.tensor(np.concatenate((row.prompt, response)))[None].long()
            logps = model(input_ids=ids).logits[0].float().log_softmax(-1)
            places = torch.arange(len(row.prompt) - 1, ids.shape[1] - 1)
            sums[index, side] = float(logps[places, ids[0, places + 1]].sum())
    return sums


def held_out_rewards(result: TrainingResult) -> np.ndarray:
    """[N, 2] of chosen and rejected responses, as training tells them."""
    assert result.pairs_file is not None
    pairs = [json.loads(line) for line in result.pairs_file.read_text(encoding="utf-8").splitlines()]
    held_out = [pair for pair in pairs if pair["split"] == "validation"]
    return np.array([[pair["chosen_reward"], pair["rejected_reward"]] for pair in held_out])


@pytest.mark.parametrize("lora", [None, LoraPlan(rank=4, alpha=16)], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", SHAPES)
def test_every_way_out_gives_the_trained_policy(architecture: str, lora: LoraPlan | None, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, architecture, lora)
    observer = RecordingObserver()
    result = run(plan, observer)
    data = EncodedData.open(plan.validation_data or "")
    published = AutoModelForCausalLM.from_pretrained(result.policy_dir)
    logps = plain_logps(published, data)
    sft_dir = observer.outputs[Stage.SFT].directory
    assert np.abs(logps - plain_logps(AutoModelForCausalLM.from_pretrained(plan.base_model_dir), data)).max() > 0.01
    if result.adapter_dir is None:
        before = plain_logps(AutoModelForCausalLM.from_pretrained(sft_dir), data)
    else:
        before = adapter_logps(plan, sft_dir, data)
        assert np.abs(adapter_logps(plan, result.adapter_dir, data) - logps).max() < TOLERANCE
    rewards = plan.beta * (logps - before)
    assert np.abs(rewards - held_out_rewards(result)).max() < TOLERANCE
    check_checkpoints(observer, data, logps)


@pytest.mark.parametrize("lora", [None, LoraPlan(rank=4, alpha=16)], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", SHAPES)
def test_bf16_gives_the_trained_policy_within_its_rounding(
    architecture: str, lora: LoraPlan | None, tmp_path: Path
) -> None:
    plan = dataclasses.replace(make_plan(tmp_path, architecture, lora), precision="bf16", sft=None)
    result = run(plan, RecordingObserver())
    data = EncodedData.open(plan.validation_data or "")
    published, base = (
        AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
        for directory, dtype in ((result.policy_dir, "auto"), (plan.base_model_dir, torch.bfloat16))
    )
    assert published.dtype == (torch.bfloat16 if lora is None else torch.float32)
    moved = plain_logps(published, data) - plain_logps(base, data)
    rows = [data.row(index) for index in range(len(data))]
    num_tokens = np.array([[len(row.first), len(row.second)] for row in rows])
    difference = np.abs(moved - held_out_rewards(result) / plan.beta) / num_tokens
    assert difference.max() < BF16_TOKEN_TOLERANCE
    assert np.abs(moved / num_tokens).max() > 5 * BF16_TOKEN_TOLERANCE  # so an untrained policy would be seen


def adapter_logps(plan: TrainingPlan, adapter_dir: Path, data: EncodedData) -> np.ndarray:
    """The base model with a saved adapter, unmerged, with transformers' own attention."""
    model = load_causal_lm(plan.base_model_dir, dtype=torch.float32)
    adapter_files.load_adapter(model, adapter_dir)
    model.set_attn_implementation("eager")
    return plain_logps(model, data)


def check_checkpoints(observer: RecordingObserver, data: EncodedData, final: np.ndarray) -> None:
    """Every one loads; the last DPO one is the published policy, and the weights are those to resume from."""
    assert len(observer.checkpoints) >= 4
    for ref in observer.checkpoints:
        if ref.policy_dir is None:
            assert ref.stage.value == "reference"
            continue
        found = plain_logps(AutoModelForCausalLM.from_pretrained(ref.policy_dir), data)
        assert np.isfinite(found).all()
        if ref is observer.checkpoints[-1]:
            assert np.abs(found - final).max() < TOLERANCE
        masters = load_file(ref.directory / "policy.safetensors")
        saved = load_file(ref.policy_dir / "model.safetensors")
        for name in masters.keys() & saved.keys():
            assert torch.equal(masters[name], saved[name]), name
