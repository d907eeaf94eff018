"""The terminal picture of a job, from the objects the API gives."""

from typing import Any

from rich.console import Console

from cli.watch import JobView, render


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


def picture(view: JobView) -> str:
    console = Console(width=140, record=True, file=None)
    with console.capture() as capture:
        console.print(render(view))
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


def test_hostile_names_are_text() -> None:
    view = JobView(job(id="[bold red]x[/]\x1b[31m"))
    assert "[bold red]x[/]" in picture(view)
