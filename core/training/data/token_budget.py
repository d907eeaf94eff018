"""Token budget of a forward pass, and its reduction when the device runs out of memory."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from core.training.observer import Observer, Stage

MAX_HALVINGS = 3

_Result = TypeVar("_Result")


@dataclass
class TokenBudget:
    """Packed tokens per forward pass; halved when the device is out of memory, while the effective batch stays."""

    tokens: int
    halvings: int = 0

    @classmethod
    def resumed(cls, planned: int, tokens: int) -> "TokenBudget":
        """Return the budget as it was at a checkpoint."""
        budget = cls(planned)
        while budget.tokens > tokens:
            budget.tokens //= 2
            budget.halvings += 1
        return budget

    def run(self, compute: Callable[[], _Result], observer: Observer, stage: Stage) -> _Result:
        """Call `compute`, and again with half the tokens whenever the device is out of memory.

        Raises:
            torch.OutOfMemoryError: after `MAX_HALVINGS`.
        """
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError:
                if self.halvings == MAX_HALVINGS or self.tokens < 2:
                    raise
            # Out of the handler: the exception no longer holds the failed pass's tensors.
            self._halve(observer, stage)

    def _halve(self, observer: Observer, stage: Stage) -> None:
        before = self.tokens
        self.tokens //= 2
        self.halvings += 1
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        observer.event(
            "warning",
            "oom_degraded",
            f"The device ran out of memory with {before} tokens at once; continuing with {self.tokens}. "
            "The batch of an optimizer step stays the same.",
            {"stage": stage.value, "micro_batch_tokens": self.tokens},
        )
