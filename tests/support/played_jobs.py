"""Jobs whose worker is played by the test: what it does, when the test says."""

from collections.abc import Iterable
from typing import Any

from api_server import RunningApi
from backends import claim, point, publication

from core.services.attempts import lifecycle, recording
from core.services.attempts.lifecycle import Claim


def start(api: RunningApi, **fields: Any) -> Claim:
    """A running job of highest priority."""
    job = api.submit(**{"priority": 100} | fields)
    held = claim(api.backend)
    assert held.job_id == job["id"]
    lifecycle.begin(api.backend, held)
    return held


def learn(api: RunningApi, held: Claim, steps: Iterable[int], slope: float = 0.1) -> None:
    """Points of a DPO run whose margin grows by `slope` a step."""
    made = []
    for step in steps:
        margin = slope * step
        rewards = {"rewards/margins": margin, "rewards/chosen": margin / 4, "rewards/rejected": -margin * 3 / 4}
        made.append(
            point(
                step,
                0.693 - slope * step / 10,
                **rewards,
                **{"rewards/accuracies": min(1.0, margin), "num_tokens": 100.0},
            )
        )
    recording.record_points(api.backend, held, made)


def finish(api: RunningApi, held: Claim) -> None:
    lifecycle.finish_succeeded(api.backend, held, publication(api.backend, held))
