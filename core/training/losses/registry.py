"""Registry of the loss functions by variant, to be bound to beta and options.

Option names are the functions' keyword arguments, but where a name chooses a function (a score, a divergence) or is a
word of Python: those few are translated here.
"""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from core.domain.variants.checks import OptionValue
from core.training.losses import margin, pointwise, reference_free
from core.training.losses.divergences import Divergence, alpha_slope, forward_kl_slope, jensen_shannon_slope
from core.training.losses.pointwise import QuantileMargins
from core.training.losses.scores import Score, length_desensitised_score, mean_score, sum_score
from core.training.losses.unpaired import LabelWeights, kto_losses
from core.training.losses.values import PairLogps, PairLosses, UnpairedLosses

PairLoss = Callable[[PairLogps, PairLogps | None], PairLosses]
"""Policy and reference log-probabilities to losses; beta and options are bound."""
UnpairedLoss = Callable[[Tensor, Tensor, Tensor, Tensor], UnpairedLosses]
"""Policy sums, reference sums, labels and KL to losses; beta and options are bound."""

Options = Mapping[str, OptionValue]
PairLossBinder = Callable[[float, Options], PairLoss]
UnpairedLossBinder = Callable[[float, Options], UnpairedLoss]

_Arguments = Callable[[Options], Mapping[str, object]]

_SCORES: Mapping[str, Score] = {"sum": sum_score, "mean": mean_score}
_DIVERGENCES: Mapping[str, Divergence] = {"forward_kl": forward_kl_slope, "js": jensen_shannon_slope}
_QUANTILE_MARGINS: Mapping[str, QuantileMargins] = {
    "paired": pointwise.paired_quantile_margins,
    "unpaired": pointwise.unpaired_quantile_margins,
}


def _as_they_are(options: Options) -> Mapping[str, object]:
    return options


def _ipo_arguments(options: Options) -> Mapping[str, object]:
    return {"score": _SCORES[str(options["normalization"])]}


def _ld_dpo_arguments(options: Options) -> Mapping[str, object]:
    return {"score": length_desensitised_score(float(options["alpha"]))}


def _dpop_arguments(options: Options) -> Mapping[str, object]:
    return {"penalty": options["lambda"]}


def _f_dpo_arguments(options: Options) -> Mapping[str, object]:
    if "alpha" in options:
        return {"divergence": alpha_slope(float(options["alpha"]))}
    return {"divergence": _DIVERGENCES[str(options["divergence"])]}


def _aot_arguments(options: Options) -> Mapping[str, object]:
    return {
        "label_smoothing": options["label_smoothing"],
        "quantile_margins": _QUANTILE_MARGINS[str(options["pairing"])],
    }


def _against_reference(loss: Callable[..., PairLosses], arguments: _Arguments = _as_they_are) -> PairLossBinder:
    def bind(beta: float, options: Options) -> PairLoss:
        bound = partial(loss, beta=beta, **arguments(options))

        def call(policy: PairLogps, reference: PairLogps | None) -> PairLosses:
            if reference is None:
                raise ValueError("this variant needs the reference's log-probabilities")
            return bound(policy, reference)

        return call

    return bind


def _of_policy_alone(loss: Callable[..., PairLosses]) -> PairLossBinder:
    def bind(beta: float, options: Options) -> PairLoss:
        bound = partial(loss, beta=beta, **options)

        def call(policy: PairLogps, _reference: PairLogps | None) -> PairLosses:
            return bound(policy)

        return call

    return bind


def _bind_kto(beta: float, options: Options) -> UnpairedLoss:
    weights = LabelWeights(
        desirable=float(options["desirable_weight"]), undesirable=float(options["undesirable_weight"])
    )
    return partial(kto_losses, beta=beta, label_weights=weights)


PAIR_LOSSES: Mapping[str, PairLossBinder] = {
    "dpo": _against_reference(margin.dpo_loss),
    "plackett_luce": _against_reference(margin.plackett_luce_loss),
    "cdpo": _against_reference(margin.cdpo_loss),
    "robust": _against_reference(margin.robust_loss),
    "ipo": _against_reference(margin.ipo_loss, _ipo_arguments),
    "hinge": _against_reference(margin.hinge_loss),
    "length_normalized": _against_reference(partial(margin.dpo_loss, score=mean_score)),
    "ld_dpo": _against_reference(margin.dpo_loss, _ld_dpo_arguments),
    "r_dpo": _against_reference(margin.r_dpo_loss),
    "rpo": _against_reference(margin.rpo_loss),
    "dpop": _against_reference(margin.dpop_loss, _dpop_arguments),
    "exo": _against_reference(margin.exo_loss),
    "discopop": _against_reference(margin.discopop_loss),
    "f_dpo": _against_reference(margin.f_dpo_loss, _f_dpo_arguments),
    "wpo": _against_reference(margin.wpo_loss),
    "apo_zero": _against_reference(pointwise.apo_zero_loss),
    "apo_down": _against_reference(pointwise.apo_down_loss),
    "nca": _against_reference(pointwise.nca_loss),
    "bco": _against_reference(pointwise.bco_loss),
    "sppo": _against_reference(pointwise.sppo_loss),
    "aot": _against_reference(pointwise.aot_loss, _aot_arguments),
    "reference_free": _of_policy_alone(reference_free.reference_free_loss),
    "simpo": _of_policy_alone(reference_free.simpo_loss),
    "orpo": _of_policy_alone(reference_free.orpo_loss),
    "cpo": _of_policy_alone(reference_free.cpo_loss),
    "unlikelihood": _of_policy_alone(reference_free.unlikelihood_loss),
}
"""Every variant for preference pairs."""

UNPAIRED_LOSSES: Mapping[str, UnpairedLossBinder] = {"kto": _bind_kto}
"""Every variant for single responses marked good or bad."""
