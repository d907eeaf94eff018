"""How many tokens run at once, and what happens when that was too many."""

import gc
from dataclasses import dataclass

import torch

from core.training.observer import Observer, Stage

MAX_HALVINGS = 3


@dataclass
class TokenBudget:
    """Packed tokens of one forward pass. Halved when the device is out of memory; the effective batch stays."""

    tokens: int
    halvings: int = 0

    @property
    def can_halve(self) -> bool:
        return self.halvings < MAX_HALVINGS and self.tokens >= 2

    def halve(self, observer: Observer, stage: Stage) -> None:
        """Half the tokens, and the device's unused memory given back."""
        before = self.tokens
        self.tokens //= 2
        self.halvings += 1
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        observer.event(
            "warning",
            "oom_degraded",
            f"The device ran out of memory with {before} tokens at once; going on with {self.tokens}. "
            "The batch of an optimizer step stays the same.",
            {"stage": stage.value, "micro_batch_tokens": self.tokens},
        )
