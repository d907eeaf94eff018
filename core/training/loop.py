"""The training loop of SFT and DPO: steps, and what happens at the boundaries between them.

At a boundary, in this order: evaluation if due, checkpoint if due, stop if asked for. A stop breaks an evaluation off;
the resumed run does it first. One transfer to the host carries all values of a step; nothing else waits for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
import torch

from core.domain import metric_names as names
from core.training.checkpointing import CheckpointWriter
from core.training.failures import NonFiniteLoss, TrainingStopped
from core.training.metrics import Figures, HostColumns, peak_memory_bytes, to_host
from core.training.observer import MetricPoint, Observer, StopRequest
from core.training.plan import EarlyStoppingPlan
from core.training.schedule import learning_rate_at
from core.training.seeding import capture_rng, restore_rng
from core.training.stage_run import LoopEnd, LoopProgress, StageRun

MAX_LINES_NAMED = 5


@dataclass(frozen=True)
class Validation:
    """When and how a stage is evaluated on held-out rows."""

    evaluate: Callable[[], Figures | None]
    """None when a stop broke it off."""
    every_steps: int
    early_stopping: EarlyStoppingPlan | None = None


class TrainingLoop:
    """Runs one stage from where its progress stands to its end."""

    def __init__(
        self,
        run: StageRun,
        observer: Observer,
        checkpoints: CheckpointWriter,
        checkpoint_every_steps: int,
        validation: Validation | None = None,
    ) -> None:
        self._run = run
        self._observer = observer
        self._checkpoints = checkpoints
        self._checkpoint_every_steps = checkpoint_every_steps
        self._validation = validation
        self._total_steps = run.order.total_steps
        self._checkpointed = self._mark() if run.progress.step else None

    def run(self) -> LoopEnd:
        """The whole stage.

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

    def find_budget(self) -> None:
        """Runs the first step without its update, so that a lack of memory shows, and is met, before it matters."""
        self._compute(self._run.order.rows_at(self._run.progress.cursor))
        self._run.optimizer.clear_gradients()

    def _is_over_at_boundary(self) -> bool:
        progress = self._run.progress
        while self._is_evaluation_due():
            if (request := self._observer.stop_requested()) != "none":
                return self.honour(request)
            self._evaluate()
        if progress.step == self._total_steps or self._has_stopped_improving():
            progress.end = LoopEnd.FINISHED
        is_due = progress.step > 0 and progress.step % self._checkpoint_every_steps == 0
        if (is_due or progress.end is not None) and self._checkpointed != self._mark():
            self._checkpoints.try_to_write(self._run.snapshot())
            self._checkpointed = self._mark()
        if (request := self._observer.stop_requested()) != "none":
            return self.honour(request)
        return progress.end is not None

    def _step(self) -> None:
        started = perf_counter()
        run, progress = self._run, self._run.progress
        rows = run.order.rows_at(progress.cursor)
        host, num_tokens = self._compute(rows)
        grad_norm = float(host.extra[0])
        self._check_finite(host, grad_norm)
        learning_rate = learning_rate_at(run.plan, progress.step + 1, self._total_steps)
        run.optimizer.update(learning_rate, grad_norm)
        run.task.record(host)
        progress.step += 1
        progress.cursor = run.order.after(progress.cursor)
        seconds = perf_counter() - started
        self.emit(
            "train",
            run.task.figures(host)
            | {
                names.GRAD_NORM: grad_norm,
                names.LEARNING_RATE: learning_rate,
                names.NUM_TOKENS: float(num_tokens),
                names.TOKENS_PER_SECOND: num_tokens / seconds,
                names.PAIRS_PER_SECOND: len(rows) / seconds,
                names.PEAK_MEMORY_BYTES: float(peak_memory_bytes(run.device)),
            },
        )

    def _compute(self, rows: list[int]) -> tuple[HostColumns, int]:
        """Gradients of one step, its values on the host, and the tokens it took; in smaller micro-batches at need."""
        run = self._run
        rng = capture_rng(run.device)
        while True:
            batches = run.task.pack(rows, run.budget.tokens)
            try:
                columns = run.task.backward(batches)
                host = to_host(columns, rows, run.optimizer.grad_norm())
                return host, sum(batch.num_tokens for batch in batches)
            except torch.OutOfMemoryError:
                if len(batches) == len(rows) or not run.budget.can_halve:
                    raise
            # Out of the handler, so that the exception no longer holds the failed pass's tensors.
            run.optimizer.clear_gradients()
            restore_rng(rng, run.device)
            run.budget.halve(self._observer, run.task.stage)

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
        """At step 0 and every few steps; the last step is left to the evaluation stage."""
        progress = self._run.progress
        if self._validation is None or progress.evaluated_step == progress.step or progress.step == self._total_steps:
            return False
        return progress.step % self._validation.every_steps == 0

    def _evaluate(self) -> None:
        assert self._validation is not None
        figures = self._validation.evaluate()
        if figures is None:
            return
        progress = self._run.progress
        progress.evaluated_step, progress.evaluation = progress.step, figures
        if self._validation.early_stopping is not None:
            _note_improvement(progress, self._validation.early_stopping)
        self.emit("validation", figures)

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

    def honour(self, request: StopRequest) -> bool:
        """True to end the stage here, with `save`.

        Raises:
            TrainingStopped: with `checkpoint`, after one was written, and with `abandon`.
        """
        if request == "abandon":
            raise TrainingStopped(has_checkpoint=False)
        if request == "save":
            self._run.progress.end = self._run.progress.end or LoopEnd.SAVED
        if self._checkpointed != self._mark():
            self._checkpoints.write(self._run.snapshot())
            self._checkpointed = self._mark()
        if request == "checkpoint":
            raise TrainingStopped(has_checkpoint=True)
        return True

    def _mark(self) -> tuple[int, int, LoopEnd | None]:
        """Tells two states at one step apart."""
        progress = self._run.progress
        return progress.step, progress.evaluated_step, progress.end

    def emit(self, split: Literal["train", "validation"], values: Figures) -> None:
        """A point at the present step."""
        progress = self._run.progress
        self._observer.point(
            MetricPoint(
                stage=self._run.task.stage.value,
                split=split,
                step=progress.step,
                epoch=self._run.order.epochs_done(progress.cursor),
                values=values,
            )
        )


def _note_improvement(progress: LoopProgress, plan: EarlyStoppingPlan) -> None:
    """Compares the evaluation just made with the best before it."""
    value = progress.evaluation[plan.metric]
    sign = -1.0 if names.METRICS[plan.metric].better == "lower" else 1.0
    if value is not None and (progress.best is None or sign * (value - progress.best) > plan.min_delta):
        progress.best, progress.num_without_improvement = value, 0
    else:
        progress.num_without_improvement += 1
