"""The doctor: receives every metric point of an attempt and reports what looks wrong, while the run continues."""

from core.domain.doctor import rules
from core.domain.doctor.findings import Finding, Rule, RunFacts
from core.domain.jobs.failure_codes import FailureCode
from core.domain.trainer_protocol import MetricPoint
from core.domain.training import metric_names as names

NON_FINITE = "non-finite-loss"
_REMEMBERED = (names.LOSS, names.GRAD_NORM, names.LEARNING_RATE, names.REWARD_MARGINS)


def all_rules() -> list[Rule]:
    return [
        rules.LearningRateFar("sft"),
        rules.LearningRateFar("dpo"),
        rules.LearningRateFar("reward"),
        rules.LossStuck(),
        rules.ZeroGradient(),
        rules.ChosenCollapse(),
        rules.KlBlowUp(),
        rules.SaturatedAccuracy("dpo"),
        rules.SaturatedAccuracy("reward"),
        rules.LengthExploitation("dpo"),
        rules.LengthExploitation("reward"),
        rules.ValidationDivergence("sft"),
        rules.ValidationDivergence("dpo"),
        rules.ValidationDivergence("reward"),
    ]


class Doctor:
    """Applies the rules to each point once; points may come twice when a write was repeated."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts
        self._rules = all_rules()
        self._heard: dict[tuple[str, str], int] = {}
        self._last: MetricPoint | None = None

    def observe(self, point: MetricPoint) -> list[Finding]:
        """Return the new findings of this point; each rule reports once."""
        key = (point.stage, point.split)
        if point.step <= self._heard.get(key, -1):
            return []
        self._heard[key] = point.step
        if point.split == "train":
            self._last = point
        told = [(rule, rule.observe(point, self._facts)) for rule in self._rules]
        self._rules = [rule for rule, finding in told if finding is None]
        return [finding for _, finding in told if finding is not None]

    def hear_failure(self, code: str) -> list[Finding]:
        """Record that the trainer failed."""
        if code != FailureCode.NON_FINITE_LOSS:
            return []
        last = self._last
        values = last.values if last else {}
        stage, step = (last.stage, last.step) if last else ("dpo", 0)
        return [
            Finding(
                rule=NON_FINITE,
                level="error",
                message=f"The loss is no number any more; the last good step of {stage.upper()} was {step}.",
                advice="Lower the learning rate or `max_grad_norm`, train with `precision: fp32`, and look at the rows "
                "named in the job's error.",
                stage=stage,
                step=step,
                evidence={"last_step": step} | {name: values[name] for name in _REMEMBERED if name in values},
            )
        ]
