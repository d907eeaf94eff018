"""The training loop of SFT and DPO: steps, and what happens at the boundaries between them.

At a boundary, in this order: evaluation if due, checkpoint if due, stop if asked for. A stop breaks an evaluation off;
the resumed run does it first. One transfer to the host carries all values of a step; nothing else waits for the device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Literal, cast

import numpy as np

from core.domain.trainer_protocol import PointStage
from core.domain.training import metric_names as names
from core.training.checkpoints.writer import CheckpointWriter, Snapshot
from core.training.data.columns import HostColumns
from core.training.failures import NonFiniteLoss, TrainingStopped
from core.training.observer import MetricPoint, Observer
from core.training.plan import EarlyStoppingPlan
from core.training.stages.run import LoopEnd, LoopProgress, StageRun
from core.training.stages.stopping import carry_out
from core.training.steps.figures import Figures, peak_memory_bytes
from core.training.steps.schedule import learning_rate_at

MAX_LINES_NAMED = 5


@dataclass(frozen=True)
class Validation:
    """Settings that say when and how a stage is evaluated on held-out rows."""

    evaluate: Callable[[], Figures | None]
    """None when a stop broke it off."""
    every_steps: int
    early_stopping: EarlyStoppingPlan | None = None
    pause_at_share: float | None = None
    """Share of the stage's steps at whose next evaluation the run stops with a checkpoint; None: it does not."""

    def pause_step(self, total_steps: int) -> int | None:
        """Return the evaluated step at which the run stops; None: it goes on to its end."""
        if self.pause_at_share is None:
            return None
        return self.every_steps * math.ceil(round(self.pause_at_share * total_steps / self.every_steps, 9))


class TrainingLoop:
    """Runs one stage from its current progress to its end."""

    def __init__(
        self,
        run: StageRun,
        observer: Observer,
        checkpoints: CheckpointWriter,
        checkpoint_every_steps: int,
        validation: Validation | None = None,
        *,
        is_resumed: bool = False,
    ) -> None:
        self._run = run
        self._observer = observer
        self._checkpoints = checkpoints
        self._checkpoint_every_steps = checkpoint_every_steps
        self._validation = validation
        self._total_steps = run.order.total_steps
        self._checkpointed = self._mark() if is_resumed else None

    def run(self) -> LoopEnd:
        """Run the rest of the stage.

        Raises:
            TrainingStopped: the observer asked for it.
            NonFiniteLoss: a loss or the gradient is NaN or infinite; the weights are those before that step.
            torch.OutOfMemoryError: even with the smallest micro-batches tried.
        """
        progress = self._run.progress
        while progress.end is None and not self._is_over_at_boundary():
            self._step()
        assert progress.end is not None
        return progress.end

    def _is_over_at_boundary(self) -> bool:
        progress = self._run.progress
        while self._is_evaluation_due():
            if self.stop_if_requested():
                return True
            self.evaluate()
        if progress.step == self._total_steps or self._has_stopped_improving():
            progress.end = LoopEnd.FINISHED
        is_due = progress.step > 0 and progress.step % self._checkpoint_every_steps == 0
        if is_due or progress.end is not None:
            self._write_checkpoint(self._checkpoints.try_to_write)
        if self.stop_if_requested():
            return True
        self._pause_if_planned()
        return progress.end is not None

    def _pause_if_planned(self) -> None:
        """Stop at the step at which the plan pauses, which is evaluated. Raises TrainingStopped."""
        step = None if self._validation is None else self._validation.pause_step(self._total_steps)
        if step is not None and self._run.progress.step >= step and self._run.progress.end is None:
            self._write_checkpoint(self._checkpoints.write)
            raise TrainingStopped(has_checkpoint=True, is_planned=True)

    def _step(self) -> None:
        started = perf_counter()
        run, progress = self._run, self._run.progress
        rows = run.order.rows_at(progress.cursor)
        host, num_tokens = run.compute_gradients(rows, self._observer)
        grad_norm = float(host.extra[0])
        self._check_finite(host, grad_norm)
        learning_rate = learning_rate_at(run.plan, progress.step + 1, self._total_steps)
        run.optimizer.update(learning_rate, grad_norm)
        run.task.record(host)
        progress.step += 1
        epoch, progress.cursor = progress.cursor.epoch, run.order.after(progress.cursor)
        figures = run.task.figures(host)
        weight, is_last = run.task.weight(host), progress.cursor.epoch > epoch
        progress.epoch_means.add(epoch, figures, len(rows), weight=weight, is_last=is_last)
        seconds = perf_counter() - started
        self._emit(
            "train",
            figures
            | {
                names.GRAD_NORM: grad_norm,
                names.LEARNING_RATE: learning_rate,
                names.NUM_TOKENS: float(num_tokens),
                names.TOKENS_PER_SECOND: num_tokens / seconds,
                names.PAIRS_PER_SECOND: len(rows) / seconds,
                names.PEAK_MEMORY_BYTES: float(peak_memory_bytes(run.device)),
            },
        )

    def _check_finite(self, host: HostColumns, grad_norm: float) -> None:
        losses = host.values[0]
        if np.isfinite(losses).all() and np.isfinite(grad_norm):
            return
        lines = [int(self._run.task.data.lines[row]) for row in np.asarray(host.rows)[~np.isfinite(losses)]]
        where = f" for line {', '.join(str(line) for line in lines[:MAX_LINES_NAMED])}" if lines else ""
        what = f"The loss is not finite{where}" if lines else "The gradient is not finite"
        raise NonFiniteLoss(
            f"{what} at step {self._run.progress.step + 1} of {self._run.task.stage.value}. "
            "Lower the learning rate, or train in fp32."
        )

    def _is_evaluation_due(self) -> bool:
        """Whether to evaluate now: at step 0 and every few steps; the evaluation stage does the last one."""
        progress = self._run.progress
        if self._validation is None or progress.evaluated_step == progress.step or progress.step == self._total_steps:
            return False
        return progress.step % self._validation.every_steps == 0

    def evaluate(self) -> bool:
        """Emit validation figures of the current step as a point; False when a stop interrupted it."""
        assert self._validation is not None
        figures = self._validation.evaluate()
        if figures is None:
            return False
        progress = self._run.progress
        progress.evaluated_step, progress.evaluation = progress.step, figures
        if self._validation.early_stopping is not None:
            _note_improvement(progress, self._validation.early_stopping)
            self._keep_if_best(self._validation.early_stopping)
        self._emit("validation", figures)
        return True

    def _keep_if_best(self, plan: EarlyStoppingPlan) -> None:
        progress = self._run.progress
        value = progress.evaluation[plan.metric]
        if self._run.best is None or value is None or not np.isfinite(value):
            return
        if progress.best_value is None or _gain(plan, value, progress.best_value) > 0:
            self._run.best.keep()
            progress.best_step, progress.best_value = progress.step, value

    def _has_stopped_improving(self) -> bool:
        plan = self._validation.early_stopping if self._validation is not None else None
        if plan is None or self._run.progress.num_without_improvement < plan.patience:
            return False
        self._observer.event(
            "info",
            "early_stopping",
            f"{plan.metric} has not improved for {plan.patience} evaluations; training ends at step "
            f"{self._run.progress.step}.",
            {"metric": plan.metric, "best": self._run.progress.best, "step": self._run.progress.step},
        )
        return True

    def stop_if_requested(self) -> bool:
        """Carry out the requested stop, if any; True when it ends the stage here (`save`).

        Raises:
            TrainingStopped: with `checkpoint`, after one was written, and with `abandon`.
        """
        write = partial(self._write_checkpoint, self._checkpoints.write)
        if not carry_out(self._observer, write):
            return False
        self._run.progress.end = self._run.progress.end or LoopEnd.SAVED
        write()
        return True

    def _write_checkpoint(self, write: Callable[[Snapshot], object]) -> None:
        """Write a checkpoint, unless the newest one holds this state."""
        if self._checkpointed != self._mark():
            write(self._run.snapshot())
            self._checkpointed = self._mark()

    def _mark(self) -> tuple[int, int, int, bool, LoopEnd | None]:
        """Return a value that distinguishes two states at one step."""
        progress = self._run.progress
        return progress.step, progress.evaluated_step, progress.parts_done, progress.is_best_restored, progress.end

    def _emit(self, split: Literal["train", "validation"], values: Figures) -> None:
        """Emit a point at the current step."""
        progress = self._run.progress
        self._observer.point(
            MetricPoint(
                stage=cast(PointStage, self._run.task.stage.value),
                split=split,
                step=progress.step,
                epoch=self._run.order.epochs_done(progress.cursor),
                values=values,
            )
        )


def _note_improvement(progress: LoopProgress, plan: EarlyStoppingPlan) -> None:
    """Compare the latest evaluation with the best before it."""
    value = progress.evaluation[plan.metric]
    if value is not None and (progress.best is None or _gain(plan, value, progress.best) > plan.min_delta):
        progress.best, progress.num_without_improvement = value, 0
    else:
        progress.num_without_improvement += 1


def _gain(plan: EarlyStoppingPlan, value: float, before: float) -> float:
    """Return by how much a value of the watched metric is better than an earlier one."""
    sign = -1.0 if names.METRICS[plan.metric].better == "lower" else 1.0
    return sign * (value - before)
