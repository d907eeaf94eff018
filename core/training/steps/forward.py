"""The forward pass of the preference stage that an objective needs, and the task that trains with it."""

from transformers import PreTrainedModel

from core.training.data.encoded import EncodedData
from core.training.losses.objective import Objective, UnpairedObjective
from core.training.ranks import Ranks
from core.training.steps.pairs import DpoTask, PairForward
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.unpaired import UnpairedForward, UnpairedTask


def split_forward(
    model: PreTrainedModel,
    data: EncodedData,
    objective: Objective | UnpairedObjective,
    reference: SplitLogps | None,
    ranks: Ranks,
) -> PairForward | UnpairedForward:
    """Return the forward pass that the objective needs over a split."""
    if isinstance(objective, UnpairedObjective):
        assert reference is not None
        return UnpairedForward(model, data, objective, reference, ranks)
    return PairForward(model, data, objective, reference, ranks)


def preference_task(forward: PairForward | UnpairedForward) -> DpoTask | UnpairedTask:
    """Return the task that trains with this forward pass."""
    return DpoTask(forward) if isinstance(forward, PairForward) else UnpairedTask(forward)
