"""Entry types of the catalogue: the loss, its options with bounds, its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class VariantOption:
    """One option of a variant. Bounds are inclusive unless said otherwise."""

    description: str
    default: float | str
    type: Literal["number", "string"] = "number"
    min: float | None = None
    max: float | None = None
    is_min_exclusive: bool = False
    is_max_exclusive: bool = False
    choices: tuple[str, ...] = ()
    only_with: tuple[str, str] | None = None
    """(option, value): the setting has an effect only when that option has that value, and is refused otherwise."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A preference loss of the catalogue."""

    name: str
    title: str
    formula: str
    paper: str
    """Where it comes from: an arXiv id, or an address where there is none."""
    year: int
    choose_when: str
    """When to choose it: one sentence for people."""
    default_beta: float
    beta_means: str = (
        "How strongly the policy is held to the reference: a small beta (0.01 to 0.05) lets it move far, a large one "
        "(0.3 to 1) keeps it close. Most published recipes use 0.1."
    )
    """What beta does in this loss."""
    learning_rates: tuple[float, float] | None = None
    """Learning rates of its own for `auto`, full fine-tuning and LoRA; None: those of DPO by model size."""
    has_own_sft: bool = False
    """The loss has a likelihood term of the chosen responses, so that `sft` is skipped unless asked for."""
    needs_reference: bool = True
    reward: str = "β·ρ"
    """The implicit reward that is logged for a response."""
    data: Literal["preference", "unpaired"] = "preference"
    needs_token_weights: bool = False
    """The loss weights tokens by how likely the policy's own draws are (`log_collisions`)."""
    needs_prefix_sums: bool = False
    """The loss reads sums over the first tokens of a response, up to the shorter response's length."""
    is_batch_level: bool = False
    """The loss compares the pairs of a step with each other, so that all of them must be computed before it."""
    compares_lists: bool = False
    """The loss compares a response with all that it is preferred to, so the pairs of a prompt belong in one step."""
    options: Mapping[str, VariantOption] = field(default_factory=dict)
    other_names: tuple[str, ...] = ()
    """What other trainers call it."""
