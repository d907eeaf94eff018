"""The methods that a run may follow, by the names of `core.domain.jobs.methods`."""

from collections.abc import Callable

from core.training.methods.preference import run_preference
from core.training.methods.reward import run_reward
from core.training.methods.supervised import run_supervised
from core.training.stages.context import RunContext
from core.training.stages.outcome import Outcome

METHODS: dict[str, Callable[[RunContext], Outcome]] = {
    "preference": run_preference,
    "supervised": run_supervised,
    "reward": run_reward,
}
