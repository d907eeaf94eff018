"""Evaluation of a reward model: rewards of held-out pairs, their calibration, a report on pairs."""

from dataclasses import dataclass

from core.domain.training import metric_names as names
from core.training.measures.calibration import calibration_bins, calibration_error, describe_calibration
from core.training.measures.final_figures import held_out_figures
from core.training.methods.pair_evaluation import PairEvaluation
from core.training.steps.figures import Figures, RewardColumn


@dataclass(kw_only=True)
class RewardEvaluation(PairEvaluation):
    """Evaluates one run of a reward model's training."""

    def validate(self) -> Figures | None:
        assert self.validation is not None
        host = self.evaluate_split(self.validation)
        if host is None:
            return None
        self.known.validation_rewards.record(self.validation.rewards(host))
        margins = host.values[RewardColumn.CHOSEN_REWARD] - host.values[RewardColumn.REJECTED_REWARD]
        self.known.held_out = {
            **held_out_figures(host.values, is_paired=True),
            "calibration": describe_calibration(margins),
        }
        return self.validation.figures(host) | {names.CALIBRATION_ERROR: calibration_error(calibration_bins(margins))}
