"""Catalogue of preference losses, from the modules beside it: settings with bounds, formulas and papers.

`core.domain.variants.checks` compares what users ask for with it; `core.training.losses.registry` maps the same names
to functions, and a test compares the two. Equation numbers stand with the functions.
"""

from collections.abc import Mapping

from core.domain.variants.entry import Variant
from core.domain.variants.margin import MARGIN
from core.domain.variants.pointwise import POINTWISE
from core.domain.variants.reference_free import REFERENCE_FREE

LEGEND = (
    "w = chosen, l = rejected; |y| = scored response tokens; S = Σ log π_θ(y_t), the policy's log-probability of a "
    "response; ρ = S − S_ref, its log-ratio to the reference; S̄ = S/|y|, ρ̄ = ρ/|y|; σ = sigmoid"
)
"""Read every `formula` with this. Natural logarithms; one loss per pair."""

VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (*MARGIN, *POINTWISE, *REFERENCE_FREE)}
"""All variants by name, `dpo` first."""
