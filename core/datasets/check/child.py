"""The child process of a check: reads its task from stdin, answers on stdout (`core.datasets.check.check_process`)."""

import errno
import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any

from core.datasets.check.check import check_file
from core.datasets.check.check_process import EXIT_BAD_OPTIONS, EXIT_OUT_OF_MEMORY, EXIT_STALLED
from core.datasets.check.pool import ROWS_BETWEEN_COLLECTIONS
from core.datasets.options import CheckOptions
from core.disk_space import EXIT_OUT_OF_SPACE, is_out_of_space
from core.domain.errors import InvalidRequest
from core.domain.typed_json import from_values


def _limit_resources(task: dict[str, Any]) -> None:
    """Limit each process to half of the memory; together they use less, as one reuses what another freed."""
    memory = task["memory_bytes"] // (2 if task["num_workers"] > 1 else 1)
    limits = [
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, task["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, 2 * task["options"]["limits"]["max_decompressed_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ]
    for kind, value in limits:
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))


def main() -> int:
    gc.set_threshold(ROWS_BETWEEN_COLLECTIONS)
    task = json.load(sys.stdin)
    _limit_resources(task)
    try:
        result = check_file(
            Path(task["source"]),
            from_values(CheckOptions, task["options"]),
            Path(task["output_dir"]),
            num_workers=task["num_workers"],
        )
    except InvalidRequest as error:
        json.dump({"detail": error.detail}, sys.stdout)
        return EXIT_BAD_OPTIONS
    except MemoryError as error:
        json.dump({"detail": str(error)}, sys.stdout)
        return EXIT_OUT_OF_MEMORY
    except TimeoutError:
        return EXIT_STALLED
    except OSError as error:
        if error.errno != errno.EFBIG and not is_out_of_space(error):
            raise
        return EXIT_OUT_OF_SPACE
    json.dump(result.to_json(), sys.stdout, allow_nan=False)
    return 0
