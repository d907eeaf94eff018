"""The setting to take: its reason claims no more than what was compared."""

import pytest

from core.domain.jobs.job_state import JobStatus
from core.services.comparisons.choice import choose
from core.services.comparisons.gathering import ComparedRun, Evaluation


def run(name: str, accuracy: float, kl: float, num_right: int, dataset: str = "ds_1") -> ComparedRun:
    """A policy that is right on the first `num_right` of ten held-out pairs."""
    return ComparedRun(
        job_id=f"job_{name}",
        name=name,
        status=JobStatus.SUCCEEDED,
        spec={"dataset_id": dataset},
        held_out={"reward_accuracy": {"value": accuracy}},
        published_step=1,
        evaluations=[Evaluation(step=1, kl=kl, accuracy=accuracy, margin=None, loss=None)],
        margins={(line, 1): 1.0 if line <= num_right else -1.0 for line in range(1, 11)},
        why_not_paired=None,
        datasets={},
        versions={},
    )


@pytest.mark.parametrize(
    ("others", "chosen", "words"),
    [
        ([], "best", "at 5 nats."),
        ([run("near", 0.8, 2.0, 8), run("nearer", 0.8, 1.0, 8)], "nearer", "is 1 nats from the reference instead of 5"),
        ([run("bad", 0.2, 1.0, 2)], "best", "no other one is both nearer to the reference and as accurate"),
        ([run("foreign", 0.8, 1.0, 8, "ds_2")], "best", "1 other nearer to the reference cannot be compared with it"),
    ],
)
def test_the_nearest_of_the_best_and_why(others: list[ComparedRun], chosen: str, words: str) -> None:
    job_id, reason = choose([*others, run("best", 0.9, 5.0, 9)])
    assert job_id == f"job_{chosen}"
    assert words in reason
