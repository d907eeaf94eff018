"""Checkpoint files: all that a run needs to continue exactly, besides its base model and data.

    state.json              stage, step, cursor, digest of the run, versions, the loop's facts
    policy.safetensors      float32 master weights of what is trained; the compute weights are their roundings
    optimizer.safetensors   moments
    best.safetensors        the masters of the best evaluation, where they are kept
    rng.safetensors         states of the random number generators
    reference.safetensors   DPO: the reference's log-probabilities, never computed again (nothing re-anchors them)
    pairs.safetensors       DPO: the last rewards of every pair
    policy/                 reference, DPO: the SFT policy as it was saved, to measure drift against

On several ranks the first three are a file for each rank, with its parts (`core.training.checkpoints.shards`). Only
files that the stage has exist. safetensors and JSON only; a directory appears complete or not at all, and is never
written to again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import randbits

from torch import Tensor

from core.disk_space import room_for
from core.training.checkpoints.shards import check_same, check_shards, is_sharded, load_exactly, save_shards
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
from core.training.ranks import ALONE, Ranks

VERSION = 1
SHARDED_VERSION = 2
"""Version of a checkpoint that several ranks have written, which earlier engines do not read."""
WEIGHTS = frozenset(("policy", "optimizer", "best"))
"""Groups of tensors as large as the model, which are read into the run's own only."""
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
    """Tensors by file, then by name. Of one that was read all but the weights."""
    stored_weights: frozenset[str] = frozenset()
    """Names of groups that `load_weights` reads."""
    directory: Path | None = None
    """Place that it was read from."""
    policy_dir: Path | None = None
    """The SFT policy, once there is one."""

    @property
    def groups(self) -> frozenset[str]:
        return self.stored_weights.union(self.tensors)

    def load_weights(self, group: str, targets: Mapping[str, Tensor], what: str, ranks: Ranks = ALONE) -> None:
        """Copy saved weights or moments into the run's own, whole or in parts; all ranks enter together.

        Raises:
            BadCheckpoint: a missing or unexpected name, another shape or type (nothing is copied then), or damage.
        """
        assert self.directory is not None
        load_exactly(self.directory, group, targets, what, ranks)


def write_checkpoint(parent: Path, checkpoint: Checkpoint, ranks: Ranks = ALONE) -> Path:
    """Write a checkpoint into a new directory under `parent` and return that directory; all ranks enter together.

    Each rank writes its parts of sharded tensors, the leader everything else; each node has a directory of its own.

    Raises:
        OSError: ENOSPC and the like, on all ranks if on one; nothing is left behind.
    """
    token = ranks.from_leader(randbits(32))
    directory = parent / f"{checkpoint.stage.value}-{checkpoint.step:08d}-{token:08x}"
    with room_for("a checkpoint"), complete_directory(directory, ranks) as hidden:
        for group, tensors in checkpoint.tensors.items():
            if is_sharded(tensors):
                save_shards(hidden, group, tensors, ranks)
        with ranks.together():
            if ranks.is_leader:
                _write_rest(hidden, checkpoint)
    return directory


def _write_rest(directory: Path, checkpoint: Checkpoint) -> None:
    """Write everything that does not lie in parts."""
    has_shards = any(is_sharded(tensors) for tensors in checkpoint.tensors.values())
    state = {
        "version": SHARDED_VERSION if has_shards else VERSION,
        "stage": checkpoint.stage.value,
        "step": checkpoint.step,
        "cursor": asdict(checkpoint.cursor),
        "run_digest": checkpoint.run_digest,
        "versions": dict(checkpoint.versions),
        "micro_batch_tokens": checkpoint.micro_batch_tokens,
        "facts": checkpoint.facts,
        "files": sorted(checkpoint.tensors),
    }
    for group, tensors in checkpoint.tensors.items():
        if not is_sharded(tensors):
            write_tensors(directory / f"{group}.safetensors", tensors)
    if checkpoint.policy_dir is not None:
        link_tree(checkpoint.policy_dir, directory / POLICY_DIR)
    text = json.dumps(state, sort_keys=True, indent=1, allow_nan=False)
    (directory / STATE_FILE).write_text(text + "\n", encoding="utf-8")


def read_checkpoint(directory: Path, run_digest: str) -> Checkpoint:
    """Read the checkpoint of the run with that digest.

    Raises:
        BadCheckpoint: damaged, of another layout version, or of another run.
    """
    try:
        state = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
        if state["version"] not in (VERSION, SHARDED_VERSION):
            known = f"{VERSION} and {SHARDED_VERSION}"
            raise BadCheckpoint(f"The checkpoint has layout version {state['version']}, this engine reads {known}.")
        weights = WEIGHTS.intersection(state["files"])
        others = sorted(weights.symmetric_difference(state["files"]))
        for group in weights:
            check_shards(directory, group)
        checkpoint = Checkpoint(
            stage=Stage(state["stage"]),
            step=int(state["step"]),
            cursor=Cursor(**state["cursor"]),
            run_digest=state["run_digest"],
            versions=state["versions"],
            micro_batch_tokens=int(state["micro_batch_tokens"]),
            facts=state["facts"],
            tensors={group: read_tensors(directory / f"{group}.safetensors") for group in others},
            stored_weights=weights,
            directory=directory,
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
    check_same(targets, sources, what)
    for name, target in targets.items():
        target.copy_(sources[name])
