"""Environment of child processes: what a program needs of ours, and no secret."""

import os

from core import failpoints

_KEPT = frozenset(
    (
        failpoints.VARIABLE,
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONPATH",
        "TMPDIR",
        "TZ",
        "VIRTUAL_ENV",
    )
)
_KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_")


def kept_environment() -> dict[str, str]:
    """Return what any child may know of our environment: no key, no URL of database, broker or store."""
    return {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
