"""Durable files: tensors as safetensors, written in one pass, and directories that appear complete or not at all.

The library's own writer needs all tensors in host memory at once and reports a full disk as text; this one takes one
tensor at a time off the device and leaves errors to the operating system.
"""

import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.durable_files import flush, flush_tree
from core.failpoints import reach
from core.training.ranks import ALONE, Ranks

_DTYPE_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}
"""Types by their names in safetensors."""
_ALIGNMENT = 8


class UnreadableTensors(Exception):
    """Raised for a file that is missing, cut short or not safetensors."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write a safetensors file in the order given, so that equal tensors give equal bytes; it is not flushed here.

    Args:
        notes: what the header says besides.

    Raises:
        OSError: ENOSPC and the like, as the operating system says it.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **notes}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors.values():
            if tensor.numel():
                data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
                # As bytes: numpy knows no bfloat16. Not by its `tofile`, which hides that a disk is full.
                file.write(data.numpy().data)
    path.chmod(0o644)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file into CPU memory.

    Raises:
        UnreadableTensors: missing, cut short or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise UnreadableTensors(path.name) from error


@contextmanager
def complete_directory(directory: Path, ranks: Ranks = ALONE) -> Iterator[Path]:
    """Yield a hidden directory that is renamed to `directory` once everything in it is on the disk.

    Left by an exception, nothing remains. Several ranks enter and leave together, with one directory for each node.
    """
    hidden = directory.parent / f".{directory.name}-{ranks.from_leader(secrets.randbits(32)):08x}"
    try:
        with ranks.together():
            if ranks.is_node_leader:
                hidden.mkdir(parents=True)
        yield hidden
        with ranks.together():
            if ranks.is_node_leader:
                _complete(hidden, directory)
    except BaseException:
        if ranks.is_node_leader:
            shutil.rmtree(hidden, ignore_errors=True)
        raise


def _complete(hidden: Path, directory: Path) -> None:
    flush_tree(hidden)
    reach("directory.written")
    hidden.rename(directory)
    flush(directory.parent)
    reach("directory.renamed")


def link_tree(source: Path, target: Path) -> None:
    """Recreate a directory's files in a new one, by hard links where the file system allows it."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_dir():
            link_tree(path, target / path.name)
            continue
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)
