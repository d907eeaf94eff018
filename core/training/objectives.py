"""From the name of a variant to the function the training loop calls.

`build_objective` binds beta and the options once; the loop never sees them again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from core.training.logps_types import PairLogps, PairLosses
from core.training.losses_margin import dpo_loss

PairLoss = Callable[[PairLogps, PairLogps], PairLosses]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A preference loss with its beta and options bound, and what it needs of the engine."""

    variant: str
    beta: float
    needs_reference: bool = True
    """Whether reference log-probabilities must be given."""
    needs_token_weights: bool = False
    """Whether the policy's `log_weights` must be computed (`wpo`)."""
    needs_prefix_sums: bool = False
    """Whether `prefix_sums` must be computed, for policy and reference (`ld_dpo`)."""
    is_batch_level: bool = False
    """Whether a pair's loss depends on the other pairs (`aot` sorts): give it all pairs of the optimizer step at once."""
    loss: PairLoss = field(repr=False)

    is_unpaired: ClassVar[bool] = False

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLosses:
        """Losses [B] with their graph, rewards [B] detached.

        Raises:
            ValueError: the variant needs reference log-probabilities and got none.
        """
        if reference is None:
            raise ValueError(f"`{self.variant}` needs the reference's log-probabilities")
        return self.loss(policy, reference)


def build_objective(variant: str, beta: float, options: Mapping[str, float | str | bool]) -> Objective:
    """The objective of a variant for preference pairs."""
    if variant != "dpo" or options:
        raise ValueError(f"`{variant}` is not a variant")
    return Objective(variant=variant, beta=beta, loss=partial(dpo_loss, beta=beta))
