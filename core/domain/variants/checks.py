"""Checks of a requested preference loss: the variant, its beta, its options. Standard library only.

An option is honoured or refused. One that a variant would ignore is an error that names where it would work.
"""

import math
from collections.abc import Mapping, Sequence

from core.domain.variants.catalogue import VARIANTS
from core.domain.variants.entry import Variant, VariantOption
from core.wording import did_you_mean

OptionValue = float | str

BETA_MIN = 1e-6
BETA_MAX = 1000.0
"""Published recipes lie between 0.001 (sppo) and 10 (simpo); squares of 1/(2·beta) stay far inside float32 here."""


class VariantError(ValueError):
    """Raised for a variant, beta or option that cannot be used as requested.

    `field` is where, as the tail of a JSON pointer: `variant`, `beta` or `variant_options/<name>`.
    `message` is a sentence for the user.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def get_variant(name: object) -> Variant:
    """Return the variant of that name.

    Raises:
        VariantError: there is none; the message lists all.
    """
    if isinstance(name, str) and name in VARIANTS:
        return VARIANTS[name]
    ours = next((variant.name for variant in VARIANTS.values() if name in variant.other_names), None)
    if ours is not None:
        raise VariantError("variant", f"`{name}` is called `{ours}` here")
    meant = did_you_mean(str(name), VARIANTS)
    raise VariantError("variant", f"`{name}` is not a variant; {meant}choose one of {', '.join(VARIANTS)}")


def validate_beta(beta: object) -> float:
    """Return beta as a float.

    Raises:
        VariantError: not a finite number from `BETA_MIN` to `BETA_MAX`.
    """
    return _check_number("beta", "beta", beta, _BETA)


def validate_options(variant: str, options: Mapping[str, object]) -> dict[str, OptionValue]:
    """Return all options of the variant, given ones checked and the rest at their defaults.

    Raises:
        VariantError: an unknown variant; an option it does not take, alone or with the others given; a value of the
            wrong type (a boolean is not a number) or out of range.
    """
    declared = get_variant(variant).options
    for name in options:
        if name not in declared:
            raise VariantError(f"variant_options/{name}", _explain_unknown_option(variant, name))
    resolved = {
        name: _check_value(name, options[name], option) if name in options else option.default
        for name, option in declared.items()
    }
    for name, option in declared.items():
        if option.only_with is None or resolved[option.only_with[0]] == option.only_with[1]:
            continue
        del resolved[name]
        if name in options:
            other, value = option.only_with
            message = f"`{name}` has an effect only with `{other}` `{value}`, which is `{resolved[other]}` here"
            raise VariantError(f"variant_options/{name}", message)
    return resolved


_BETA = VariantOption(description="β", default=0.1, min=BETA_MIN, max=BETA_MAX)


def _explain_unknown_option(variant: str, name: str) -> str:
    takers = [other.name for other in VARIANTS.values() if name in other.options]
    if takers:
        return f"`{name}` has no effect with `{variant}`; use {_either(takers)}"
    own = [f"`{option}`" for option in VARIANTS[variant].options]
    has = f"`{variant}` takes {', '.join(own)}" if own else f"`{variant}` takes none"
    return f"no variant has an option `{name}`; {did_you_mean(name, VARIANTS[variant].options)}{has}"


def _check_value(name: str, value: object, option: VariantOption) -> OptionValue:
    field = f"variant_options/{name}"
    if option.type == "number":
        return _check_number(field, name, value, option)
    if not isinstance(value, str) or value not in option.choices:
        raise VariantError(field, f"`{name}` must be {_either(option.choices)}, not {value!r}")
    return value


def _check_number(field: str, name: str, value: object, option: VariantOption) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise VariantError(field, f"`{name}` must be a number, not {value!r}")
    # Compared before it is made a float: an integer may be too large for one. NaN fails every comparison.
    is_inside = (
        option.min is None or value > option.min or (value == option.min and not option.is_min_exclusive)
    ) and (option.max is None or value < option.max or (value == option.max and not option.is_max_exclusive))
    if not is_inside or not math.isfinite(value):
        raise VariantError(field, f"`{name}` must be {_describe_range(option)}, not {value!r}")
    return float(value)


def _describe_range(option: VariantOption) -> str:
    low = "" if option.min is None else f"{'above' if option.is_min_exclusive else 'at least'} {option.min:g}"
    high = "" if option.max is None else f"{'below' if option.is_max_exclusive else 'at most'} {option.max:g}"
    return " and ".join(part for part in (low, high) if part) or "a finite number"


def _either(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
