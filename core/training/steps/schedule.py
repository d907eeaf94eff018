"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math

from core.training.plan import SftPlan


def learning_rate_at(plan: SftPlan, step: int, total_steps: int) -> float:
    """Return the learning rate of the update numbered `step` (from 1) out of `total_steps`.

    Warm-up is that of the DPO authors' code, LambdaLR min(1, (s + 1) / (w + 1)) with s = step - 1. The decays reach 0
    one step after the last, as transformers' schedules do.
    """
    return plan.learning_rate * _factor(plan, step - 1, total_steps)


def _factor(plan: SftPlan, done: int, total_steps: int) -> float:
    if done < plan.warmup_steps:
        return (done + 1) / (plan.warmup_steps + 1)
    if plan.schedule == "constant":
        return 1.0
    share = (done - plan.warmup_steps) / max(1, total_steps - plan.warmup_steps)
    if plan.schedule == "linear":
        return 1.0 - share
    return 0.5 * (1.0 + math.cos(math.pi * share))
