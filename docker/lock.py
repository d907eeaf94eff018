"""Writes docker/requirements-*.txt: every package of the images, at its version in constraints.txt, with the hashes
of its files. `make lock` runs it after a change of pyproject.toml or constraints.txt.

torch has a file of its own, with what only its CUDA build needs: an image without CUDA takes the CPU build instead,
which lies in another index under other hashes.
"""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path("docker")
UV = Path(sys.executable).parent / "uv"
OPTIONS = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")
OF_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
HEADER = "# Written by `make lock`; pip install --require-hashes --no-deps -r {name}\n"


def resolve(*extras: str) -> dict[str, str]:
    """Name to the lines that pin it."""
    chosen = [word for extra in extras for word in ("--extra", extra)]
    command = [str(UV), "pip", "compile", "pyproject.toml", *chosen, "-c", "constraints.txt", *OPTIONS]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries if "==" in entry}


def write(name: str, entries: dict[str, str]) -> None:
    (FOLDER / name).write_text(HEADER.format(name=name) + "".join(entries.values()), encoding="utf-8")


worker = resolve("api", "worker")
of_torch = {name: entry for name, entry in worker.items() if OF_TORCH.fullmatch(name)}
write("requirements-api.txt", resolve("api"))
write("requirements-torch.txt", of_torch)
write("requirements-worker.txt", {name: entry for name, entry in worker.items() if name not in of_torch})
