"""Writing a run's checkpoints and announcing them."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.training.checkpoint import OUT_OF_SPACE, Checkpoint, TensorGroups, write_checkpoint
from core.training.data_order import Cursor
from core.training.observer import CheckpointRef, JsonValue, Observer, Stage


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a stage has to say of itself for a checkpoint. Tensors are the run's own: written before the next step."""

    stage: Stage
    step: int
    cursor: Cursor = field(default_factory=Cursor)
    micro_batch_tokens: int
    facts: Mapping[str, JsonValue]
    tensors: TensorGroups
    policy_dir: Path | None = None


@dataclass(frozen=True)
class CheckpointWriter:
    """Whose checkpoints they are and where they go."""

    directory: Path
    run_digest: str
    versions: Mapping[str, str]
    observer: Observer

    def write(self, snapshot: Snapshot) -> None:
        """Writes and announces a checkpoint.

        Raises:
            OSError: ENOSPC and the like; nothing is left behind.
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
        directory = write_checkpoint(self.directory, checkpoint)
        self.observer.checkpoint(CheckpointRef(directory=directory, stage=snapshot.stage, step=snapshot.step))

    def try_to_write(self, snapshot: Snapshot) -> None:
        """As `write`, but a full disk only costs this checkpoint: training is worth more than one more of them."""
        try:
            self.write(snapshot)
        except OSError as error:
            if error.errno not in OUT_OF_SPACE:
                raise
            self.observer.event(
                "warning",
                "disk_full",
                f"The worker's disk is full: the checkpoint at step {snapshot.step} was left out.",
                {"free_bytes": shutil.disk_usage(self.directory).free, "step": snapshot.step},
            )
