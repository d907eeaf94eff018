"""Objectives: from the name of a variant to the function that the training loop calls.

`build_objective` and `build_unpaired_objective` check and bind beta and the options once; the loop never sees them
again. What users may set stands in `core.domain.variants.catalogue`, the functions in `core.training.losses.registry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from core.domain.variants.checks import VariantError, get_variant, validate_beta, validate_options
from core.training.losses.registry import PAIR_LOSSES, UNPAIRED_LOSSES, PairLoss, UnpairedLoss
from core.training.losses.unpaired import kto_kl
from core.training.losses.values import PairLogps, PairLosses, UnpairedLosses


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A preference loss with its beta and options bound, and what it requires of the engine."""

    variant: str
    beta: float
    needs_reference: bool
    """Whether reference log-probabilities must be given; if not, what is given is not looked at."""
    needs_token_weights: bool
    """Whether the policy's `log_weights` must be computed (`wpo`)."""
    needs_prefix_sums: bool
    """Whether `prefix_sums` must be computed, for policy and reference (`ld_dpo`)."""
    is_batch_level: bool
    """Whether losses depend on the other pairs (`aot` sorts): give it all pairs of the optimizer step at once."""
    compares_lists: bool
    """Whether losses depend on the other pairs of the chosen response (`plackett_luce`): `PairLogps.lists` is read."""
    loss: PairLoss = field(repr=False)

    is_unpaired: ClassVar[bool] = False

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLosses:
        """Return losses [B] with their graph, and rewards [B] detached.

        Raises:
            ValueError: the variant needs reference log-probabilities, or token weights, and got none.
        """
        return self.loss(policy, reference)


@dataclass(frozen=True, kw_only=True)
class UnpairedObjective:
    """A loss of single responses marked good or bad, with its beta and options bound.

    What the loop does for one optimizer step of N rows (x_i, y_i, label_i):

    1. Without gradient, score the mismatched rows (x_i, y_j), j the row's partner
       (`core.training.data.order.partners`), under policy and reference: `kl = objective.kl(policy_sums,
       reference_sums)`. The whole step takes part, whatever the micro-batches, so gradient accumulation changes
       nothing. Partners are the same in every epoch, so the reference's half is computed once.
    2. For each micro-batch: `objective(policy_sums, reference_sums, labels, kl)`, losses summed and divided by N.
    """

    variant: str
    beta: float
    loss: UnpairedLoss = field(repr=False)

    needs_reference: ClassVar[bool] = True
    is_unpaired: ClassVar[bool] = True

    def kl(self, policy_sums: Tensor, reference_sums: Tensor) -> Tensor:
        """Return the scalar z >= 0 from log-probabilities [N] of mismatched rows; detached."""
        return kto_kl(policy_sums, reference_sums)

    def __call__(self, policy_sums: Tensor, reference_sums: Tensor, labels: Tensor, kl: Tensor) -> UnpairedLosses:
        """Return losses [B] with graph and rewards [B] detached, from sums [B], labels [B] bool and the step's `kl`."""
        return self.loss(policy_sums, reference_sums, labels, kl)


def build_objective(variant: str, beta: float, options: Mapping[str, float | str | bool]) -> Objective:
    """Build the objective of a variant for preference pairs, with defaults for options not given.

    Raises:
        VariantError: an unknown variant or option, a value out of range, or a variant for unpaired responses.
    """
    resolved = validate_options(variant, options)
    declared = get_variant(variant)
    if declared.data == "unpaired":
        raise VariantError("variant", f"`{variant}` learns from single responses marked good or bad, not from pairs")
    beta = validate_beta(beta)
    return Objective(
        variant=variant,
        beta=beta,
        needs_reference=declared.needs_reference,
        needs_token_weights=declared.needs_token_weights,
        needs_prefix_sums=declared.needs_prefix_sums,
        is_batch_level=declared.is_batch_level,
        compares_lists=declared.compares_lists,
        loss=PAIR_LOSSES[variant](beta, resolved),
    )


def build_unpaired_objective(variant: str, beta: float, options: Mapping[str, float | str | bool]) -> UnpairedObjective:
    """Build the objective of a variant for single responses marked good or bad.

    Raises:
        VariantError: an unknown variant or option, a value out of range, or a variant for preference pairs.
    """
    resolved = validate_options(variant, options)
    if get_variant(variant).data == "preference":
        raise VariantError("variant", f"`{variant}` learns from pairs, not from single responses")
    beta = validate_beta(beta)
    return UnpairedObjective(variant=variant, beta=beta, loss=UNPAIRED_LOSSES[variant](beta, resolved))
