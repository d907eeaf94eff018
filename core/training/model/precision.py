"""Which precision a device multiplies faster: CPUs without bfloat16 instructions are several times slower in it."""

from time import perf_counter

import torch

from core.training.plan import Precision

_SIZE = 256
_REPEATS = 3
_WORTHWHILE = 1.3
"""bf16 costs accuracy, so it must be faster by this factor."""


def faster_precision(device: torch.device | str) -> Precision:
    """bf16 on CUDA; on a CPU whatever wins a short race of matrix products (a few hundredths of a second)."""
    device = torch.device(device)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    return "bf16" if gemm_flops(torch.bfloat16) > _WORTHWHILE * gemm_flops(torch.float32) else "fp32"


def gemm_flops(dtype: torch.dtype, size: int = _SIZE, repeats: int = _REPEATS) -> float:
    """Operations a second of this process's threads in a square product on the CPU; the best of a few."""
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    torch.mm(left, right)
    best = float("inf")
    for _ in range(repeats):
        started = perf_counter()
        torch.mm(left, right)
        best = min(best, perf_counter() - started)
    return 2 * size**3 / best
