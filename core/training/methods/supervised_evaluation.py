"""Evaluation of supervised fine-tuning: loss, perplexity and token accuracy of held-out rows, the base model beside."""

from dataclasses import dataclass

from torch import Tensor

from core.training.measures.token_figures import TokenTable
from core.training.observer import JsonValue
from core.training.stages.evaluation import Evaluation, EvaluationState
from core.training.steps.figures import Figures
from core.training.steps.sft import SftForward


@dataclass
class SupervisedState(EvaluationState):
    """Values of held-out rows, besides what every stage keeps."""

    rows: TokenTable

    @classmethod
    def empty(cls, num_validation: int) -> "SupervisedState":
        return cls(TokenTable(num_validation))

    def tensors(self) -> dict[str, Tensor]:
        return self.rows.state()


@dataclass(kw_only=True)
class SupervisedEvaluation(Evaluation):
    """Evaluates one run of SFT."""

    known: SupervisedState

    @property
    def state(self) -> SupervisedState:
        return self.known

    def validate(self) -> Figures | None:
        assert self.context.validation is not None
        forward = SftForward(self.model, self.context.validation, self.context.ranks)
        host = self.evaluate_split(forward)
        if host is None:
            return None
        self.known.rows.record(host, is_untrained=self.progress.step == 0)
        self.known.held_out = self.known.rows.figures()
        return forward.figures(host)

    def summarise(self) -> dict[str, JsonValue]:
        return {}

    def results(self, step: int) -> dict[str, JsonValue]:
        """Return the figures that stand for the run, the base model's and the improvement over it beside them."""
        rows = self.known.rows
        measured = bool(self.known.held_out)
        return {
            **super().results(step),
            "base_model": rows.base_figures() if measured else None,
            "better_than_base_model": rows.better_than_base() if measured else None,
        }
