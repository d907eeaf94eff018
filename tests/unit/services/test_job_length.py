"""`max_length` beside the base model's context, when a job is submitted."""

from typing import Any

import pytest

from core.domain.errors import FieldError
from core.domain.jobs.job_spec import JobRequest
from core.services.base_models.starting_points import StartingPoint
from core.services.jobs.submission import check_length

LEARNED = {"context_length": 64, "has_position_table": True}


def faults(facts: dict[str, Any], **body: object) -> list[FieldError]:
    found: list[FieldError] = []
    request = JobRequest.model_validate({"base_model": "small", "dataset_id": "ds_1"} | body)
    check_length(request, StartingPoint(num_parameters=1, facts=facts), found)
    return found


def test_a_length_beyond_learned_positions_is_refused_with_both_numbers() -> None:
    (fault,) = faults(LEARNED, max_length=65)
    assert fault.pointer == "/max_length"
    assert "65" in fault.detail
    assert "64" in fault.detail


@pytest.mark.parametrize(
    ("facts", "body"),
    [
        (LEARNED, {"max_length": 64}),
        (LEARNED, {}),
        (LEARNED | {"has_position_table": False}, {"max_length": 65}),
        ({"context_length": 64}, {"max_length": 65}),  # of a job that an earlier version stored
        ({"context_length": None, "has_position_table": True}, {"max_length": 65}),
    ],
)
def test_other_lengths_are_taken(facts: dict[str, Any], body: dict[str, Any]) -> None:
    assert not faults(facts, **body)
