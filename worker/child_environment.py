"""Environment of the worker's child processes: what they need, and no secret."""

import os
from pathlib import Path

from core import failpoints

_KEPT_VARIABLES = (
    failpoints.VARIABLE,
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "TZ",
)


_KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_")


_UNTRIMMED = str(16 * 1024**3)


def trainer_environment(work_dir: Path, num_threads: int) -> dict[str, str]:
    """Return what a trainer needs of our environment: no key, no URL of database, broker or store."""
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    temporary = str(work_dir / "tmp")
    return kept | {
        "HOME": temporary,
        "TMPDIR": temporary,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",  # progress bars do not belong into a log
        # glibc would give big buffers back to the kernel after each step, and fault them in again: a tenth of the time.
        "MALLOC_MMAP_THRESHOLD_": _UNTRIMMED,
        "MALLOC_TRIM_THRESHOLD_": _UNTRIMMED,
        # Without it cuBLAS cannot be deterministic.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
