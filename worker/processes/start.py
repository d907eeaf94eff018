"""Start of the processes that load torch: `python -m worker.processes.start trainer|scoring|… <work directory>`.

The same as `python -m worker.processes.trainer <work directory>`, and faster there by the time of `import_quickly`.
"""

import sys
from pathlib import Path

from core.children.launched import obey_agent
from core.quick_imports import import_quickly
from worker.processes.busy_machine import shorten_waiting_while_busy

_MODULES = {
    "trainer": "trainer.__main__",
    "device_group": "device_group",
    "scoring": "scoring",
    "republication": "republication",
    "gguf_conversion": "gguf_conversion",
    "gguf_check": "gguf_check",
    "generation": "generation.__main__",
    "responses": "responses",
}


def command_of(kind: str) -> tuple[str, ...]:
    """Return the command that starts this process; the work directory is its last argument."""
    return (sys.executable, "-P", "-m", "worker.processes.start", kind)


def main(kind: str, work_dir: Path) -> int:
    """Run the process; return its exit code."""
    obey_agent()
    shorten_waiting_while_busy()
    return int(import_quickly(f"worker.processes.{_MODULES[kind]}").main(work_dir))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
