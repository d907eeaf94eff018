"""Short runs in every architecture whose ways out are promised: policies that have moved away from their base."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tiny_models import VOCAB_SIZE, make_tiny_model
from tiny_runs import World, write_data
from transformers import AutoConfig, AutoModelForCausalLM

from core.training.plan import LoraPlan, TrainingPlan

SHAPES = ("llama", "qwen2", "gpt2", "gemma")


def random_pairs(num_rows: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)

    def tokens(longest: int) -> list[int]:
        return [int(token) for token in rng.integers(3, VOCAB_SIZE, rng.integers(2, longest + 1))]

    return [(tokens(9), tokens(12), tokens(12)) for _ in range(num_rows)]


def tied_or_not(directory: Path, architecture: str) -> Path:
    """llama tied, qwen2 untied; gpt2 and gemma are always tied."""
    make_tiny_model(directory, architecture)
    if architecture == "llama":
        config = AutoConfig.from_pretrained(directory, tie_word_embeddings=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
        assert "lm_head.weight" not in load_file(directory / "model.safetensors")
    return directory


def make_plan(directory: Path, architecture: str, lora: LoraPlan | None) -> TrainingPlan:
    torch.set_num_threads(1)
    base = tied_or_not(directory / "base", architecture)
    train = write_data(directory / "train", random_pairs(8, 1))
    validation = write_data(directory / "validation", random_pairs(4, 2))
    plan = World(directory, str(base), train, validation).plan("run", lora=lora, checkpoint_every_steps=2)
    return dataclasses.replace(plan, dpo=dataclasses.replace(plan.dpo, learning_rate=1e-2))
