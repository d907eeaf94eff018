"""Choice of precision: which one a device multiplies faster, and which one a base model's files need.

CPUs without bfloat16 instructions are several times slower in it. A policy that LoRA tuned is published in float32,
since bfloat16 would round its update away: what starts from it computes in float32 unless asked otherwise.
"""

from pathlib import Path
from time import perf_counter

import torch
from safetensors import safe_open

from core.training.model.policies import ADAPTER_DIR
from core.training.plan import Precision

_FINER_THAN_BF16 = frozenset({"F32", "F16", "F64"})
_SIZE = 256
_REPEATS = 3
_WORTHWHILE = 1.3
"""bf16 costs accuracy, so it must be faster by this factor."""


def faster_precision(device: torch.device | str) -> Precision:
    """Return bf16 on CUDA, and on a CPU the winner of a short race of matrix products (hundredths of a second)."""
    device = torch.device(device)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    return "bf16" if gemm_flops(torch.bfloat16) > _WORTHWHILE * gemm_flops(torch.float32) else "fp32"


def is_rounded_by_bf16(base_model_dir: Path) -> bool:
    """Whether the files hold weights that bfloat16 would round, judged by their type."""
    for path in sorted(base_model_dir.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if any(file.get_slice(name).get_dtype() in _FINER_THAN_BF16 for name in file.keys()):  # noqa: SIM118
                return True
    return False


def holds_merged_adapter(base_model_dir: Path) -> bool:
    """Whether the files are a policy whose merged update bfloat16 would round away."""
    return (base_model_dir / ADAPTER_DIR).is_dir() and is_rounded_by_bf16(base_model_dir)


def gemm_flops(dtype: torch.dtype, size: int = _SIZE, repeats: int = _REPEATS) -> float:
    """Measure operations per second of this process's threads in a square product on the CPU; the best of a few."""
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    torch.mm(left, right)
    best = float("inf")
    for _ in range(repeats):
        started = perf_counter()
        torch.mm(left, right)
        best = min(best, perf_counter() - started)
    return 2 * size**3 / best
