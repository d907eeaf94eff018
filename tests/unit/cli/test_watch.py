"""The terminal picture of a job, from the objects the API gives."""

from typing import Any

import pytest
from rich.console import Console

from preftune.cli.watch import JobView, render


def job(**changes: Any) -> dict[str, Any]:
    progress = {"stage": "dpo", "step": 5, "total_steps": 20, "fraction": 0.5, "eta_seconds": 75.0}
    stages = [
        {"name": "sft", "status": "finished", "steps": 20, "reused_from": None},
        {"name": "dpo", "status": "running", "steps": 5, "reused_from": None},
    ]
    base = {"id": "job_1", "status": "running", "stage": "dpo", "progress": progress, "stages": stages}
    return base | {"queue_position": None, "error": None} | changes


def point(step: int, loss: float) -> dict[str, Any]:
    values = {"loss": loss, "rewards/chosen": 0.3, "rewards/rejected": -0.3, "rewards/margins": 0.6}
    return {"stage": "dpo", "split": "train", "step": step, "values": values | {"rewards/accuracies": 0.75}}


def picture(view: JobView, columns: int = 140, lines: int = 60) -> str:
    console = Console(width=columns, height=lines, record=True, file=None)
    with console.capture() as capture:
        console.print(render(view, console))
    return capture.get()


def test_a_running_job_shows_bars_values_and_curves() -> None:
    view = JobView(job())
    for step, loss in ((1, 0.6931), (2, 0.5), (3, 0.4375)):
        view._add(point(step, loss))
    text = picture(view)
    assert "job_1" in text
    assert "5/20" in text
    assert "1 min 15 s left" in text
    assert "loss 0.4375" in text
    assert "margin +0.600" in text
    assert "accuracy 75.0%" in text
    assert "rewards/rejected -0.3000" in text
    assert any(0x2800 < ord(char) < 0x2900 for char in text)


@pytest.mark.parametrize(
    ("columns", "lines", "has_curves"), [(80, 24, True), (80, 18, True), (80, 12, False), (20, 24, False)]
)
def test_the_doctors_words_come_before_curves_that_find_no_room(columns: int, lines: int, has_curves: bool) -> None:
    view = JobView(job())
    for step in (1, 2, 3):
        view._add(point(step, 0.5))
    message = {"message": "The loss stays.", "advice": "Raise it."}
    view.findings.append({"kind": "doctor", "level": "warning", "data": message})
    text = picture(view, columns, lines)
    assert "doctor: The loss" in text
    assert len(text.splitlines()) <= lines
    assert ("rewards/rejected -0.3000" in text) == has_curves


def test_hostile_names_are_text() -> None:
    view = JobView(job(id="[bold red]x[/]\x1b[31m"))
    assert "[bold red]x[/]" in picture(view)


def test_an_ended_job_shows_held_out_figures_instead_of_the_last_batch() -> None:
    figure = {"value": 0.875, "low": 0.53, "high": 0.98}
    held_out = {"num_rows": 8, "loss": figure | {"low": None}, "reward_accuracy": figure, "reward_margin": figure}
    training = {"epoch": 2, "is_whole_epoch": True, "num_rows": 99, "loss": 0.25, "reward_accuracy": None}
    view = JobView(job(status="succeeded", results={"step": 20, "held_out": held_out, "training": training}))
    view._add(point(20, 0.0123))
    text = picture(view)
    assert "held-out, 8 rows  accuracy 87.5% (53.0% to 98.0%)  margin +0.875 (+0.530 to +0.980)  loss 0.8750" in text
    assert "training, mean over epoch 2  loss 0.2500" in text
    assert "0.0123" not in text
