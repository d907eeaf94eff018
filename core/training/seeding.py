"""Random numbers: seeds derived by purpose, and the generators' states as checkpoints keep them."""

import hashlib
import random

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derive a seed in [0, 2**63) for one purpose: `derive_seed(0, "order", epoch)` is independent of others."""
    text = "\x1f".join([str(seed), *(str(part) for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture_rng(device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return states of torch's generators, of the CPU and of `device`; the engine draws from no others."""
    states = {"cpu": torch.get_rng_state()}
    if torch.device(device).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_rng(states: dict[str, Tensor], device: torch.device | str = "cpu") -> None:
    """Restore the states of `capture_rng`; on another kind of device only the CPU's."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
