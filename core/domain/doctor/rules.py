"""Rules of the doctor: each reads a run's points as they come and reports at most once.

Thresholds are chosen so that a healthy run is left alone: a rule that cries wolf is worth nothing.
`docs/guide/doctor.md` lists them for users.
"""

import math
from typing import ClassVar

from core.domain.doctor.findings import Finding, RunFacts
from core.domain.doctor.windows import Window
from core.domain.trainer_protocol import MetricPoint
from core.domain.training import metric_names as names

WINDOW = 20
"""Train points that a rule about a state looks at together."""


def is_train(point: MetricPoint, stage: str = "dpo") -> bool:
    return (point.stage, point.split) == (stage, "train")


class LearningRateFar:
    """Learning rate over ten times what published recipes use for models of any size, at the start of a stage."""

    name = "learning-rate-far-from-presets"
    factor = 10.0
    presets: ClassVar = {  # (stage, is_lora): from the largest models' to the smallest's, of core.domain.jobs.presets
        ("sft", False): (2e-5, 1e-4),
        ("sft", True): (2e-4, 2e-4),
        ("dpo", False): (5e-7, 5e-6),
        ("dpo", True): (5e-6, 5e-5),
        ("reward", False): (1e-5, 2e-5),
        ("reward", True): (1e-4, 1e-4),
    }

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        if not is_train(point, self._stage) or self._stage not in facts.stages:
            return None
        rate = facts.stages[self._stage].learning_rate
        low, high = self.presets[self._stage, facts.is_lora]
        if low / self.factor <= rate <= high * self.factor:
            return None
        is_high = rate > high
        kind = "LoRA" if facts.is_lora else "full fine-tuning"
        known = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        trouble = "the policy may fall apart" if is_high else "hardly anything will be learnt"
        return Finding(
            rule=self.name,
            level="warning",
            message=f"The learning rate of {self._stage.upper()} is {rate:g}; presets for {kind} are {known}.",
            advice=f"At this rate {trouble}; leave `{self._stage}.learning_rate` at `auto`, or stay near the presets.",
            stage=point.stage,
            step=point.step,
            evidence={"learning_rate": rate, "preset_lowest": low, "preset_highest": high},
        )


class LossStuck:
    """Loss past warm-up that is still that of an untrained policy."""

    name = "loss-stuck"
    tolerance = 0.003

    def __init__(self) -> None:
        self._window = Window((names.LOSS, names.GRADIENT_WEIGHT), WINDOW)

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        if not is_train(point) or point.step <= facts.stages["dpo"].warmup_steps:
            return None
        if not self._window.add(point):
            return None
        loss, weight = self._window.mean(names.LOSS), self._window.mean(names.GRADIENT_WEIGHT)
        if abs(loss - math.log(2)) > self.tolerance or abs(weight - 0.5) > self.tolerance:
            return None
        rate = facts.stages["dpo"].learning_rate
        return Finding(
            rule=self.name,
            level="warning",
            message=f"After {point.step} steps the loss is {loss:.4f}, still the ln 2 of the start: nothing is learnt.",
            advice=f"Raise `dpo.learning_rate` (now {rate:g}), and check that chosen and rejected responses differ.",
            stage=point.stage,
            step=point.step,
            evidence={"mean_loss": loss, "mean_gradient_weight": weight, "window_steps": WINDOW, "learning_rate": rate},
        )


class ZeroGradient:
    """Several steps in a row without any gradient: the rest of the run would compute for nothing."""

    name = "zero-gradient"
    num_steps = 5
    smallest = 1e-9

    def __init__(self) -> None:
        self._num_zero = 0

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        norm = point.values.get(names.GRAD_NORM)
        if point.split != "train" or norm is None:
            return None
        self._num_zero = self._num_zero + 1 if norm < self.smallest else 0
        if self._num_zero < self.num_steps:
            return None
        margin = point.values.get(names.REWARD_MARGINS)
        return Finding(
            rule=self.name,
            level="warning",
            message=f"The gradient has been zero for {self.num_steps} steps; the policy does not change any more.",
            advice="Every pair is learnt past what this loss rewards: cancel with `save`, lower `beta`, or bring "
            "harder pairs.",
            stage=point.stage,
            step=point.step,
            evidence={"grad_norm": norm, "mean_margin": margin, "beta": facts.beta},
        )


class ChosenCollapse:
    """Likelihood displacement (arXiv:2410.08847): margins grow while the chosen responses become unlikely."""

    name = "chosen-logps-collapse"
    least_nats = 5.0
    least_share_of_logp = 0.2
    least_share_fallen = 0.75

    def __init__(self) -> None:
        self._window = Window((names.CHOSEN_REWARDS, names.CHOSEN_LOGPS, names.CHOSEN_LOGPS_FELL), WINDOW)

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        if not is_train(point) or not self._window.add(point):
            return None
        fallen = self._window.mean(names.CHOSEN_LOGPS_FELL)
        drop = -self._window.mean(names.CHOSEN_REWARDS) / facts.beta
        before = self._window.mean(names.CHOSEN_LOGPS) + drop
        is_deep = drop >= max(self.least_nats, self.least_share_of_logp * abs(before))
        if fallen < self.least_share_fallen or not is_deep:
            return None
        return Finding(
            rule=self.name,
            level="warning",
            message=f"Chosen responses have lost {drop:.1f} nats against the reference ({fallen:.0%} of the pairs): "
            "the policy leaves them, too.",
            advice="Lower the learning rate, raise `beta`, try the variant `dpop`, and look for pairs "
            "whose responses are nearly the same.",
            stage=point.stage,
            step=point.step,
            evidence={"mean_drop_nats": drop, "mean_reference_logp": before, "share_fallen": fallen},
        )


class KlBlowUp:
    """Divergence at which the reference's responses have become absurdly unlikely under the policy."""

    name = "kl-blow-up"
    most_nats_per_token = 1.0

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        per_token = point.values.get(names.SAMPLED_KL_PER_TOKEN)
        if point.split != "validation" or per_token is None or per_token < self.most_nats_per_token:
            return None
        return Finding(
            rule=self.name,
            level="warning",
            message=f"On responses of the reference, the policy is {per_token:.2f} nats a token away from it.",
            advice="Read the samples. Lower the learning rate or raise `beta`; an earlier checkpoint may be the better "
            "policy.",
            stage=point.stage,
            step=point.step,
            evidence={"kl_per_token": per_token, "kl": point.values.get(names.SAMPLED_KL), "beta": facts.beta},
        )


class SaturatedAccuracy:
    """Nearly every pair is ranked right with a wide margin, while much of the run is still ahead."""

    name = "accuracy-saturated"
    least_accuracy = 0.99
    most_gradient_weight = 0.05
    latest_fraction = 0.8

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._window = Window((names.REWARD_ACCURACIES, names.GRADIENT_WEIGHT), WINDOW)

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        if not is_train(point, self._stage) or not self._window.add(point):
            return None
        fraction = point.epoch / facts.stages[self._stage].epochs
        accuracy, weight = self._window.mean(names.REWARD_ACCURACIES), self._window.mean(names.GRADIENT_WEIGHT)
        if accuracy < self.least_accuracy or weight > self.most_gradient_weight or fraction > self.latest_fraction:
            return None
        return Finding(
            rule=self.name,
            level="info",
            message=f"After {fraction:.0%} of the run {accuracy:.1%} of the pairs are ranked right and weigh "
            f"{weight:.3f} in the gradient.",
            advice="Little is left to learn from these pairs: fewer epochs would do, or harder pairs.",
            stage=point.stage,
            step=point.step,
            evidence={"mean_accuracy": accuracy, "mean_gradient_weight": weight, "fraction": fraction},
        )


class LengthExploitation:
    """The reward margin follows how much longer the chosen response is."""

    name = "length-exploitation"
    least_correlation = 0.8
    least_accuracy = 0.6

    advice: ClassVar = {
        "dpo": "Balance the lengths of chosen and rejected responses, or use a variant that discounts length "
        "(`ld_dpo`, `simpo`).",
        "reward": "Balance the lengths of chosen and rejected responses: what is tuned with it would get long.",
    }

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._window = Window((names.LENGTH_CORRELATION, names.REWARD_ACCURACIES), WINDOW)

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        if not is_train(point, self._stage) or not self._window.add(point):
            return None
        correlation, accuracy = self._window.mean(names.LENGTH_CORRELATION), self._window.mean(names.REWARD_ACCURACIES)
        if correlation < self.least_correlation or accuracy < self.least_accuracy:
            return None
        return Finding(
            rule=self.name,
            level="warning",
            message=f"The reward margin follows the difference in length (correlation {correlation:.2f}): what "
            "is learnt is to be long rather than good.",
            advice=self.advice[self._stage],
            stage=point.stage,
            step=point.step,
            evidence={"mean_correlation": correlation, "mean_accuracy": accuracy, "window_steps": WINDOW},
        )


class ValidationDivergence:
    """Held-out loss rises while the loss on training rows falls."""

    name = "validation-divergence"
    num_evaluations = 3
    least_rise = 0.1

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._train = Window((names.LOSS,), WINDOW)
        self._best = math.inf
        self._best_step = 0
        self._train_at_best = math.inf
        self._num_worse = 0

    def observe(self, point: MetricPoint, facts: RunFacts) -> Finding | None:
        loss = point.values.get(names.LOSS)
        if point.stage != self._stage or loss is None:
            return None
        if point.split == "train":
            self._train.add(point)
            return None
        if point.step == 0 or not len(self._train):
            return None
        train = self._train.mean(names.LOSS)
        if loss < self._best:
            self._best, self._best_step, self._train_at_best, self._num_worse = loss, point.step, train, 0
            return None
        self._num_worse = self._num_worse + 1 if loss > self._best * (1 + self.least_rise) else 0
        if self._num_worse < self.num_evaluations or train >= self._train_at_best:
            return None
        return Finding(
            rule=self.name,
            level="warning",
            message=f"Validation loss has risen from {self._best:.4f} (step {self._best_step}) to {loss:.4f} while "
            "training loss falls: the training rows are learnt by heart.",
            advice="Use fewer epochs or `early_stopping`, a lower learning rate, or more data.",
            stage=point.stage,
            step=point.step,
            evidence={"best_loss": self._best, "best_step": self._best_step, "loss": loss, "mean_train_loss": train},
        )
