"""Reader of a safetensors file's header, to count parameters and detect damage without torch.

Layout: 8 bytes little-endian length N, N bytes JSON `{name: {dtype, shape, data_offsets}}`, then the tensors' bytes.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.base_models.errors import DamagedBaseModel
from core.domain.training.stored_weights import FLOATING_TYPES

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
_BUFFERS = (".inv_freq", ".masked_bias")
"""Buffers that older checkpoints stored beside the parameters."""


@dataclass(frozen=True, kw_only=True)
class WeightSummary:
    num_parameters: int
    tensors: frozenset[str]
    types: Mapping[str, str]
    """Types of all tensors, as safetensors names them."""


def read_weights(path: Path) -> WeightSummary:
    """Count the floating-point parameters of one file.

    Raises:
        DamagedBaseModel: the header is not one, or the file is shorter or longer than its header says.
    """
    with path.open("rb") as file:

        def read(start: int, end: int) -> bytes:
            file.seek(start)
            return file.read(end - start)

        return read_weights_of(path.name, path.stat().st_size, read)


def read_weights_of(name: str, num_bytes: int, read: Callable[[int, int], bytes]) -> WeightSummary:
    """Count the floating-point parameters of a file by its header; `read(start, end)` returns its bytes [start, end).

    Raises DamagedBaseModel as `read_weights` does, and what `read` raises.
    """
    header, data_bytes = _read_header(name, num_bytes, read)
    header.pop("__metadata__", None)
    try:
        num_parameters, end = _measure(header)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(name, "its header describes no tensors") from None
    if end != data_bytes:
        raise _damaged(name, f"it holds {data_bytes} bytes of tensors, its header says {end}")
    types = {tensor_name: str(tensor["dtype"]) for tensor_name, tensor in header.items()}
    return WeightSummary(num_parameters=num_parameters, tensors=frozenset(header), types=types)


def _read_header(name: str, num_bytes: int, read: Callable[[int, int], bytes]) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(read(0, 8), "little") if num_bytes >= 8 else 0
    if num_bytes < 8 or length > min(MAX_HEADER_BYTES, num_bytes - 8):
        raise _damaged(name, "it is no safetensors file, or was cut short")
    try:
        header = json.loads(read(8, 8 + length))
    except (ValueError, RecursionError):
        raise _damaged(name, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(name, "its header is not a JSON object")
    return header, num_bytes - 8 - length


def _measure(header: dict[str, Any]) -> tuple[int, int]:
    num_parameters, end = 0, 0
    for name, tensor in header.items():
        start, stop = tensor["data_offsets"]
        count = math.prod(int(size) for size in tensor["shape"])
        if stop - start != count * _BITS[tensor["dtype"]] // 8:
            raise ValueError(name)
        end = max(end, stop)
        if tensor["dtype"] in FLOATING_TYPES and not name.endswith(_BUFFERS):
            num_parameters += count
    return num_parameters, end


def _damaged(name: str, why: str) -> DamagedBaseModel:
    return DamagedBaseModel(f"{name} cannot be used: {why}. Fetch it again.")
