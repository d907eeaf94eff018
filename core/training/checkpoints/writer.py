"""Writing of a run's checkpoints, and their announcement to the observer."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from core.disk_space import is_out_of_space
from core.training.checkpoints.files import Checkpoint, TensorGroups, write_checkpoint
from core.training.data.order import Cursor
from core.training.observer import CheckpointRef, JsonValue, Observer, Stage
from core.training.ranks import ALONE, Ranks


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """State that a stage adds to a checkpoint. Its tensors are the run's own: written before the next step."""

    stage: Stage
    step: int
    cursor: Cursor = field(default_factory=Cursor)
    micro_batch_tokens: int
    facts: Mapping[str, JsonValue]
    tensors: TensorGroups
    policy_dir: Path | None = None
    save_policy: Callable[[Path], None] | None = None
    """Writes the policy of the moment as a folder that transformers loads; all ranks enter together."""


@dataclass(frozen=True)
class CheckpointWriter:
    """Writes the checkpoints of one run into its directory."""

    directory: Path
    run_digest: str
    versions: Mapping[str, str]
    observer: Observer
    ranks: Ranks = ALONE

    def write(self, snapshot: Snapshot) -> None:
        """Write and announce a checkpoint; all ranks enter together.

        Raises:
            OSError: ENOSPC and the like, on all ranks if on one; nothing is left behind.
        """
        checkpoint = Checkpoint(
            stage=snapshot.stage,
            step=snapshot.step,
            cursor=snapshot.cursor,
            run_digest=self.run_digest,
            versions=self.versions,
            micro_batch_tokens=snapshot.micro_batch_tokens,
            facts=snapshot.facts,
            tensors=snapshot.tensors,
            policy_dir=snapshot.policy_dir,
        )
        directory = write_checkpoint(self.directory, checkpoint, self.ranks)
        policy_dir = self._save_policy(snapshot, directory.with_name(f"{directory.name}-policy"))
        self.observer.checkpoint(
            CheckpointRef(directory=directory, stage=snapshot.stage, step=snapshot.step, policy_dir=policy_dir)
        )

    def try_to_write(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, or skip it with a warning when the disk is full, so that training continues."""
        try:
            self.write(snapshot)
        except OSError as error:
            if not is_out_of_space(error):
                raise
            self._tell_of_full_disk("the checkpoint", snapshot.step)

    def _save_policy(self, snapshot: Snapshot, directory: Path) -> Path | None:
        """Save the policy and return its directory; a failure only loses these weights, not the checkpoint."""
        if snapshot.save_policy is None:
            return None
        try:
            snapshot.save_policy(directory)
        except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in words of its own
            if not is_out_of_space(error):
                raise
            self._tell_of_full_disk("the policy", snapshot.step)
            return None
        return directory

    def _tell_of_full_disk(self, what: str, step: int) -> None:
        self.observer.event(
            "warning",
            "disk_full",
            f"The worker's disk is full: {what} at step {step} was left out.",
            {"free_bytes": shutil.disk_usage(self.directory).free, "step": step},
        )
