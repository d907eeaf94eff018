"""Checkpoint files: all that a run needs to continue exactly, besides its base model and data.

    state.json              stage, step, cursor, digest of the run, versions, the loop's facts
    policy.safetensors      float32 master weights of what is trained; the compute weights are their roundings
    optimizer.safetensors   moments
    rng.safetensors         states of the random number generators
    reference.safetensors   DPO: the reference's log-probabilities, never computed again (nothing re-anchors them)
    pairs.safetensors       DPO: the last rewards of every pair
    policy/                 reference, DPO: the SFT policy as it was saved, to measure drift against

Only files that the stage has exist. safetensors and JSON only; a directory appears complete or not at all, and is
never written to again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_hex

from torch import Tensor

from core.disk_space import room_for
from core.training.checkpoints.tensor_files import (
    UnreadableTensors,
    complete_directory,
    link_tree,
    read_tensors,
    write_tensors,
)
from core.training.data.order import Cursor
from core.training.failures import BadCheckpoint
from core.training.observer import JsonValue, Stage

VERSION = 1
STATE_FILE = "state.json"
POLICY_DIR = "policy"

TensorGroups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One point of a run, between two optimizer steps (or two groups of the reference pass)."""

    stage: Stage
    step: int
    cursor: Cursor
    run_digest: str
    """Digest of the plan (`core.training.checkpoints.digests.run_digest`)."""
    versions: Mapping[str, str]
    micro_batch_tokens: int
    """Less than the plan's after an out-of-memory."""
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    """What else the stage keeps, as plain values."""
    tensors: TensorGroups = field(default_factory=dict)
    """Tensors by file, then by name."""
    policy_dir: Path | None = None
    """The SFT policy, once there is one."""


def write_checkpoint(parent: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into a new directory under `parent` and return that directory.

    Raises:
        OSError: ENOSPC and the like; nothing is left behind.
    """
    directory = parent / f"{checkpoint.stage.value}-{checkpoint.step:08d}-{token_hex(4)}"
    state = {
        "version": VERSION,
        "stage": checkpoint.stage.value,
        "step": checkpoint.step,
        "cursor": asdict(checkpoint.cursor),
        "run_digest": checkpoint.run_digest,
        "versions": dict(checkpoint.versions),
        "micro_batch_tokens": checkpoint.micro_batch_tokens,
        "facts": checkpoint.facts,
        "files": sorted(checkpoint.tensors),
    }
    with room_for("a checkpoint"), complete_directory(directory) as hidden:
        for group, tensors in checkpoint.tensors.items():
            write_tensors(hidden / f"{group}.safetensors", tensors)
        if checkpoint.policy_dir is not None:
            link_tree(checkpoint.policy_dir, hidden / POLICY_DIR)
        text = json.dumps(state, sort_keys=True, indent=1, allow_nan=False)
        (hidden / STATE_FILE).write_text(text + "\n", encoding="utf-8")
    return directory


def read_checkpoint(directory: Path, run_digest: str) -> Checkpoint:
    """Read the checkpoint of the run with that digest.

    Raises:
        BadCheckpoint: damaged, of another layout version, or of another run.
    """
    try:
        state = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
        if state["version"] != VERSION:
            raise BadCheckpoint(f"The checkpoint has layout version {state['version']}, this engine reads {VERSION}.")
        checkpoint = Checkpoint(
            stage=Stage(state["stage"]),
            step=int(state["step"]),
            cursor=Cursor(**state["cursor"]),
            run_digest=state["run_digest"],
            versions=state["versions"],
            micro_batch_tokens=int(state["micro_batch_tokens"]),
            facts=state["facts"],
            tensors={group: read_tensors(directory / f"{group}.safetensors") for group in state["files"]},
            policy_dir=directory / POLICY_DIR if (directory / POLICY_DIR).is_dir() else None,
        )
    except (OSError, ValueError, KeyError, TypeError, UnreadableTensors) as error:
        raise BadCheckpoint("The checkpoint is damaged. Resume from an older one.") from error
    if checkpoint.run_digest != run_digest:
        raise BadCheckpoint("The checkpoint belongs to a run with other settings or data.")
    return checkpoint


def copy_exactly(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], what: str) -> None:
    """Copy saved tensors into the run's own, in place.

    Raises:
        BadCheckpoint: a missing or unexpected name, another shape or type. Nothing is copied then.
    """
    missing, unexpected = sorted(targets.keys() - sources.keys()), sorted(sources.keys() - targets.keys())
    if missing:
        raise BadCheckpoint(f"The checkpoint lacks {len(missing)} tensors of the {what}, such as {missing[0]}.")
    if unexpected:
        raise BadCheckpoint(
            f"The checkpoint has {len(unexpected)} tensors that the {what} does not, such as {unexpected[0]}."
        )
    for name, target in targets.items():
        if target.shape != sources[name].shape or target.dtype != sources[name].dtype:
            raise BadCheckpoint(f"The checkpoint's {name} does not fit the {what}: another shape or type.")
    for name, target in targets.items():
        target.copy_(sources[name])
