"""Writes docker/requirements-*.txt: every package of the images and of `make venv`, at its version in constraints.txt,
with the hashes of its files. `make lock` runs it after a change of pyproject.toml or constraints.txt.

torch has files of its own. What its CUDA build needs is locked here, in requirements-torch-cuda.txt. The CPU build lies
in an index of PyTorch's, under other hashes: requirements-torch-cpu.txt holds them, copied from there by hand, and this
script only ends with a message when its version is no longer the one of constraints.txt.
"""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path("docker")
UV = Path(sys.executable).parent / "uv"
OPTIONS = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")
OURS = ("--no-emit-package", "preftune", "--no-emit-package", "preftune-service")
"""Client and service are built from this checkout."""
OF_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
TO_BUILD = ("setuptools",)
"""What makes a wheel of our own code."""
CPU_FILE = "requirements-torch-cpu.txt"
HEADER = "# Written by `make lock`; pip install --require-hashes --no-deps -r {name}\n"


def resolve(*extras: str) -> dict[str, str]:
    """Name to the lines that pin it."""
    chosen = [word for extra in extras for word in ("--extra", extra)]
    command = [str(UV), "pip", "compile", "pyproject.toml", *chosen, "-c", "constraints.txt", *OPTIONS, *OURS]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries if "==" in entry}


def write(name: str, entries: dict[str, str]) -> None:
    (FOLDER / name).write_text(HEADER.format(name=name) + "".join(entries.values()), encoding="utf-8")


def version(entry: str) -> str:
    return entry.partition("==")[2].split()[0]


worker = resolve("worker", "otel")
of_torch = {name: entry for name, entry in worker.items() if OF_TORCH.fullmatch(name)}
write("requirements-build.txt", {name: worker[name] for name in TO_BUILD})
write("requirements-api.txt", resolve("otel"))
write("requirements-torch-cuda.txt", of_torch)
write("requirements-worker.txt", {name: entry for name, entry in worker.items() if name not in of_torch})
developing = resolve("dev")
write("requirements-dev.txt", {name: entry for name, entry in developing.items() if name not in of_torch})
wanted = version(of_torch["torch"]) + "+cpu"
if f"torch=={wanted} " not in (FOLDER / CPU_FILE).read_text(encoding="utf-8"):
    sys.exit(f"{FOLDER / CPU_FILE}: put torch=={wanted} and the hashes of its wheels there; its head says from where")
