"""Options that several variants take."""

from core.domain.variants.entry import VariantOption

NLL_WEIGHT = "α, weight of the chosen response's mean negative log-likelihood per token"


def label_smoothing(default: float, *, is_min_exclusive: bool = False) -> VariantOption:
    """Return the option of that name, in [0, 0.5)."""
    return VariantOption(
        description="ε, the assumed share of pairs whose labels are swapped",
        default=default,
        min=0.0,
        max=0.5,
        is_min_exclusive=is_min_exclusive,
        is_max_exclusive=True,
    )


def weight(description: str, default: float, max: float) -> VariantOption:
    """Return an option of a number from 0 to `max`."""
    return VariantOption(description=description, default=default, min=0.0, max=max)
