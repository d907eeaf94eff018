"""Tensors in parts on several ranks, in checkpoints: planned by torch.distributed.checkpoint, kept as safetensors.

Each rank writes its parts into a file of its own, `<group>-<rank>-of-<ranks>.safetensors`, whose header says where each
part begins in its tensor (as torch's HuggingFaceStorageWriter writes it). A group of one rank is the single file
`<group>.safetensors` of whole tensors. Either is read into any number of parts. torch's own format is not used: its
description of a checkpoint is a pickle, and its writer holds all of a rank's bytes twice.
"""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from core.training.checkpoints.tensor_files import DTYPES, UnreadableTensors, write_tensors
from core.training.failures import BadCheckpoint
from core.training.ranks import Ranks

_PLACES_KEY = "DCP_SHARDING_INFO"
_OFFSETS_KEY = "saved_offsets"


def save_shards(directory: Path, group: str, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Write this rank's parts of sharded tensors; all ranks enter together. Nothing is flushed here.

    Raises:
        OSError: ENOSPC and the like, on all ranks if on one.
    """
    path = directory / f"{group}-{ranks.rank + 1:05d}-of-{ranks.size:05d}.safetensors"
    try:
        save(dict(tensors), storage_writer=_ShardWriter(path))
    except CheckpointException as error:
        raise _cause(error) from error


def load_exactly(directory: Path, group: str, targets: Mapping[str, Tensor], what: str, ranks: Ranks) -> None:
    """Copy a group's saved tensors into the run's own, whole or in parts, in place; all ranks enter together.

    Raises:
        BadCheckpoint: a missing or unexpected name, another shape or type (nothing is copied then), or damage.
    """
    try:
        files = _SavedFiles.open(directory, group)
        check_same(targets, files.metadata.state_dict_metadata, what)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a single process, which it takes for a mistake
            load(dict(targets), storage_reader=_ShardReader(files), no_dist=ranks.size == 1)
    except (CheckpointException, UnreadableTensors, SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint("The checkpoint is damaged. Resume from an older one.") from error


def check_shards(directory: Path, group: str) -> None:
    """Check that a group's files are there and whole. Raises UnreadableTensors."""
    _SavedFiles.open(directory, group)


def check_same(targets: Mapping[str, Any], sources: Mapping[str, Any], what: str) -> None:
    """Compare names, shapes and types of the run's tensors and a checkpoint's. Raises BadCheckpoint."""
    missing, unexpected = sorted(targets.keys() - sources.keys()), sorted(sources.keys() - targets.keys())
    if missing:
        raise BadCheckpoint(f"The checkpoint lacks {len(missing)} tensors of the {what}, such as {missing[0]}.")
    if unexpected:
        raise BadCheckpoint(
            f"The checkpoint has {len(unexpected)} tensors that the {what} does not, such as {unexpected[0]}."
        )
    for name, target in targets.items():
        if _form(target) != _form(sources[name]):
            raise BadCheckpoint(f"The checkpoint's {name} does not fit the {what}: another shape or type.")


def _form(tensor: Tensor | TensorStorageMetadata) -> tuple[torch.Size, torch.dtype]:
    if isinstance(tensor, TensorStorageMetadata):
        return tensor.size, tensor.properties.dtype
    return tensor.shape, tensor.dtype


def _cause(error: CheckpointException) -> OSError:
    """Return the first rank's failure; what is no failure of the operating system is raised as it is."""
    failures = [failure for _, (failure, _) in sorted(error.failures.items())]
    for failure in failures:
        if isinstance(failure, OSError):
            return OSError(failure.errno, failure.strerror)
    raise failures[0]


@dataclass(frozen=True)
class _Part:
    """A part of a tensor in a file."""

    path: Path
    offsets: torch.Size


@dataclass(frozen=True)
class _SavedFiles:
    """The files of one group, as their headers describe them."""

    metadata: Metadata

    @classmethod
    def open(cls, directory: Path, group: str) -> "_SavedFiles":
        """Read the headers. Raises UnreadableTensors: missing, cut short or not safetensors."""
        paths = sorted(directory.glob(f"{group}-*-of-*.safetensors")) or [directory / f"{group}.safetensors"]
        tensors: dict[str, TensorStorageMetadata] = {}
        parts: dict[MetadataIndex, _Part] = {}
        try:
            for path in paths:
                with safe_open(path, framework="pt") as file:
                    places = json.loads((file.metadata() or {}).get(_PLACES_KEY, "{}"))
                    for name in file.keys():  # noqa: SIM118 (not a mapping)
                        piece = file.get_slice(name)
                        sizes = torch.Size(piece.get_shape())
                        offsets = torch.Size(places.get(name, {}).get(_OFFSETS_KEY, [0] * len(sizes)))
                        _add_part(tensors, name, ChunkStorageMetadata(offsets, sizes), DTYPES[piece.get_dtype()])
                        parts[MetadataIndex(name, offsets)] = _Part(path, offsets)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise UnreadableTensors(group) from error
        _refuse_gaps(group, len(paths), paths[0], tensors)
        return cls(Metadata(state_dict_metadata=dict(tensors), storage_data=parts))


def _add_part(
    tensors: dict[str, TensorStorageMetadata], name: str, chunk: ChunkStorageMetadata, dtype: torch.dtype
) -> None:
    known = tensors.setdefault(name, TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(chunk.sizes), []))
    known.chunks.append(chunk)
    ends = (offset + size for offset, size in zip(chunk.offsets, chunk.sizes, strict=True))
    known.size = torch.Size(max(old, end) for old, end in zip(known.size, ends, strict=True))


def _refuse_gaps(group: str, num_files: int, first: Path, tensors: Mapping[str, TensorStorageMetadata]) -> None:
    """Raise UnreadableTensors where a rank's file or a part is missing."""
    wanted = int(first.stem.rsplit("-of-", 1)[1]) if "-of-" in first.stem else 1
    is_whole = all(
        sum(torch.Size(chunk.sizes).numel() for chunk in tensor.chunks) == tensor.size.numel()
        for tensor in tensors.values()
    )
    if num_files != wanted or not is_whole:
        raise UnreadableTensors(group)


class _ShardWriter(StorageWriter):
    """Writes what the plan gives to this rank into one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Do nothing: a writer writes once."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the directory exists."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors, places, results = {}, {}, []
        for item in plan.items:
            name, offsets = item.index.fqn, item.index.offset or torch.Size()
            part = planner.resolve_data(item)
            assert isinstance(part, Tensor)  # nothing else is saved
            tensors[name], places[name] = part, {_OFFSETS_KEY: list(offsets)}
            results.append(WriteResult(item.index, part.numel() * part.element_size(), self._path.name))
        write_tensors(self._path, tensors, {_PLACES_KEY: json.dumps(places)})
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Do nothing: the headers say where the parts belong."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False


class _ShardReader(StorageReader):
    """Reads what the plan needs for this rank's parts, and no more."""

    def __init__(self, files: _SavedFiles) -> None:
        self._files = files

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Do nothing: a reader reads once."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._files.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the headers were read."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        parts: Mapping[MetadataIndex, _Part] = self._files.metadata.storage_data
        by_file: dict[Path, list[Any]] = {}
        for item in plan.items:
            by_file.setdefault(parts[item.storage_index].path, []).append(item)
        for path, items in by_file.items():
            with safe_open(path, framework="pt") as file:
                for item in items:
                    starts_and_lengths = zip(item.storage_offsets, item.lengths, strict=True)
                    piece = file.get_slice(item.storage_index.fqn)
                    found = piece[tuple(slice(start, start + length) for start, length in starts_and_lengths)]
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(found)
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False


def is_sharded(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are parts of whole ones that lie on several ranks."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())
