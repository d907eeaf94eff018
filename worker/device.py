"""Choice of the device to train on, asked of a subprocess: torch is never loaded into the worker itself."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.control_groups import num_cores
from core.settings import SettingsError

_PROBE_SECONDS = 120
_GPU_SIGNS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
"""Without any of them there is no GPU to look for, and no need to wait for torch to load."""
_PROBE = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps([torch.cuda.get_device_name(index) for index in range(count)]))
"""


@dataclass(frozen=True, kw_only=True)
class Device:
    name: str
    """For torch: `cpu` or `cuda:<n>`."""
    label: str
    """For people."""
    count: int = 1
    """Number of devices, from that one on."""


CPU = Device(name="cpu", label="CPU")


@dataclass
class PrecisionChoice:
    """Faster precision of this worker's device, as its first trainer measured it: equal jobs get the same.

    The race on a CPU may end otherwise on a busy day, and the precision of an `auto` is part of what is trained.
    """

    found: Literal["bf16", "fp32"] | None = None

    def note(self, reported: str | None) -> None:
        """Keep the first answer."""
        if self.found is None and reported in ("bf16", "fp32"):
            self.found = "bf16" if reported == "bf16" else "fp32"


def choose_devices(wanted: str, count: int) -> Device:
    """Return the first of `count` devices that train together. Raises SettingsError when there are fewer."""
    first = choose_device(wanted)
    if count == 1:
        return first
    if first.name != "cpu":
        index, names = int(first.name.removeprefix("cuda:")), probe_gpus()
        if index + count > len(names):
            raise SettingsError(
                f"PREFTUNE_NUM_DEVICES: {count} from {first.name} on are not here; torch finds {len(names)}"
            )
    return Device(name=first.name, label=f"{count} x {first.label}", count=count)


def choose_device(wanted: str) -> Device:
    """Return `cpu`, `cuda` or `cuda:<n>` for a setting, `auto` included. Raises SettingsError for a missing one."""
    if wanted == "cpu" or (wanted == "auto" and not any(Path(sign).exists() for sign in _GPU_SIGNS)):
        return CPU
    kind, _, number = wanted.partition(":")
    if wanted != "auto" and (kind != "cuda" or not (number.isdecimal() or number == "")):
        raise SettingsError("PREFTUNE_DEVICE: must be auto, cpu, cuda or cuda:<n>")
    names = probe_gpus()
    index = int(number or 0)
    if index < len(names):
        return Device(name=f"cuda:{index}", label=names[index])
    if wanted == "auto":
        return CPU
    raise SettingsError(f"PREFTUNE_DEVICE: {wanted} is not here; torch finds {len(names)} CUDA devices")


def probe_gpus() -> list[str]:
    """Return names of the CUDA devices that torch can use; none when the probe fails."""
    try:
        probe = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return [str(name) for name in json.loads(probe.stdout.splitlines()[-1])]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return []


def count_threads(wanted: int) -> int:
    """Return a trainer's CPU threads: as set, or every core this process may use."""
    if wanted:
        return wanted
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, num_cores() or available))
