"""Evaluation of the preference stage: rewards of held-out pairs, divergence from the reference, a report on pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.training.losses.objective import Objective, UnpairedObjective
from core.training.measures.final_figures import held_out_figures
from core.training.measures.reference_kl import SampledKl
from core.training.methods.pair_evaluation import PairEvaluation, PairState
from core.training.observer import JsonValue
from core.training.steps.figures import Figures
from core.training.steps.pairs import PairForward, UnmovedForward


@dataclass
class PreferenceState(PairState):
    """Rewards of held-out pairs and the draws of the divergence."""

    sampled_kl: SampledKl

    def facts(self) -> dict[str, JsonValue]:
        return {**super().facts(), "reference_draws": self.sampled_kl.draws}

    def restore(self, facts: Mapping[str, Any]) -> None:
        super().restore(facts)
        self.sampled_kl.draws = list(facts.get("reference_draws", []))  # none in checkpoints of the first release


@dataclass(kw_only=True)
class PreferenceEvaluation(PairEvaluation):
    """Evaluates one run of the preference stage."""

    objective: Objective | UnpairedObjective
    known: PreferenceState

    def begin(self) -> None:
        """Answer the sample prompts, and draw for the divergence, with the policy before its first update."""
        super().begin()
        self.known.sampled_kl.draw(self.model)

    def validate(self) -> Figures | None:
        assert self.validation is not None
        forward = self.validation
        if self.progress.step == 0 and isinstance(forward, PairForward):
            forward = UnmovedForward.of(forward)
        host = self.evaluate_split(forward)
        if host is None:
            return None
        self.known.validation_rewards.record(self.validation.rewards(host))
        is_paired = not isinstance(self.objective, UnpairedObjective)
        self.known.held_out = held_out_figures(host.values, is_paired=is_paired)
        return self.validation.figures(host) | self.known.sampled_kl.figures(self.model)

    def summarise(self) -> Mapping[str, JsonValue]:
        return {} if isinstance(self.objective, UnpairedObjective) else super().summarise()
