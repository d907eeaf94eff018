"""Mapping of foreign exceptions to the engine's failures, such as lack of memory or of disk space."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from core.disk_space import GOES_ON, full_disk_detail, is_out_of_space, purpose_of
from core.domain.variants.checks import VariantError
from core.training.data.encoded import BrokenEncodedData
from core.training.data.packing import NothingToScore
from core.training.failures import BadBaseModel, BadData, BadPlan, DiskFull, GpuOutOfMemory, HostOutOfMemory
from core.training.model.adapters.targets import UnsupportedAdapter
from core.training.model.loading import UnsupportedModel
from core.training.stages.memory_costs import available_bytes, held_bytes

_MIB = 2**20
_UNITS = {"KiB": 2**10, "MiB": _MIB, "GiB": 2**30}
_OUT_OF_HOST_MEMORY = ("can't allocate memory", "not enough memory")


@contextmanager
def failures_named(device: torch.device) -> Iterator[None]:
    """Translate known exceptions into `TrainingFailure`; lets it and `TrainingStopped` through."""
    try:
        yield
    except (BrokenEncodedData, NothingToScore) as error:
        raise BadData(error.detail) from error
    except UnsupportedModel as error:
        raise BadBaseModel(error.detail) from error
    except UnsupportedAdapter as error:
        raise BadPlan(error.detail) from error
    except VariantError as error:
        raise BadPlan(error.message) from error
    except torch.OutOfMemoryError as error:
        raise _gpu_out_of_memory(str(error), device) from error
    except MemoryError as error:
        raise _host_out_of_memory() from error
    except (OSError, SafetensorError) as error:
        if is_out_of_space(error):
            raise _disk_full(error) from error
        raise
    except RuntimeError as error:
        if is_out_of_space(error):
            raise _disk_full(error) from error
        if any(text in str(error) for text in _OUT_OF_HOST_MEMORY):
            raise _host_out_of_memory() from error
        raise


def _gpu_out_of_memory(message: str, device: torch.device) -> GpuOutOfMemory:
    needed = _asked_bytes(message)
    available, total = torch.cuda.mem_get_info(device) if torch.cuda.is_available() else (None, None)
    facts = []
    if needed is not None:
        facts.append(f"{needed // _MIB} MiB more were needed")
    if available is not None and total is not None:
        facts.append(f"{available // _MIB} of {total // _MIB} MiB were free")
    detail = f"The GPU ran out of memory{': ' if facts else ''}{', '.join(facts)}. "
    return GpuOutOfMemory(
        detail + "Use LoRA, the rmsprop optimizer, a smaller base model, a shorter max_length, or a larger GPU.",
        needed_mib=None if needed is None else needed // _MIB,
        available_mib=None if available is None else available // _MIB,
    )


def _asked_bytes(message: str) -> int | None:
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (KiB|MiB|GiB)", message)
    return None if found is None else int(float(found.group(1)) * _UNITS[found.group(2)])


def _host_out_of_memory() -> HostOutOfMemory:
    cpu = torch.device("cpu")
    held, available = held_bytes(cpu), available_bytes(cpu)
    facts = [f"the trainer held {held // _MIB} MiB"] if held else []
    if available is not None:
        facts.append(f"{available // _MIB} MiB were available")
    return HostOutOfMemory(
        f"The machine ran out of memory{': ' if facts else ''}{', '.join(facts)}. "
        "Use LoRA, the rmsprop optimizer, a smaller base model or a shorter max_length.",
        available_mib=None if available is None else available // _MIB,
    )


def _disk_full(error: BaseException) -> DiskFull:
    return DiskFull(full_disk_detail(purpose_of(error), GOES_ON))
