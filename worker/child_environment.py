"""Environment of the worker's child processes: what they need, and no secret."""

from pathlib import Path

from core.children.environment import kept_environment

_UNTRIMMED = str(16 * 1024**3)

CPU_LIBRARIES = {
    # glibc would give big buffers back to the kernel after each step, and fault them in again: a tenth of the time.
    "MALLOC_MMAP_THRESHOLD_": _UNTRIMMED,
    "MALLOC_TRIM_THRESHOLD_": _UNTRIMMED,
    # oneDNN and, above it, torch's bindings keep 1,024 shapes of bf16 products each, 0.6 MB a shape; micro-batches
    # differ in their number of tokens, so that hardly any shape is met again.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
    # Threads that compute side by side share one heap; heaps of their own would each keep what it was given.
    "MALLOC_ARENA_MAX": "1",
}
"""What the libraries of a computation on the CPU take from the environment; results do not depend on it."""


def trainer_environment(work_dir: Path, num_threads: int) -> dict[str, str]:
    """Return what a trainer needs of our environment: no key, no URL of database, broker or store."""
    temporary = str(work_dir / "tmp")
    return kept_environment() | {
        "HOME": temporary,
        "TMPDIR": temporary,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",  # progress bars do not belong into a log
        **CPU_LIBRARIES,
        # Without it cuBLAS cannot be deterministic.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
