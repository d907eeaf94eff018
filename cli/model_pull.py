"""Pull of a base model with a progress bar."""

from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from core.base_models.directory import BaseModel
from core.base_models.progress import PullProgress
from core.base_models.pull import pull
from preftune.cli.console import err


def pull_with_progress(model: str, models_dir: Path) -> BaseModel:
    """Pull a model; raises the errors of `core.base_models.pull.pull`."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(model, total=None)
        told: set[str] = set()

        def show(step: PullProgress) -> None:
            if step.message not in told and step.phase != "done":
                told.add(step.message)
                progress.console.print(step.message, markup=False, style="dim")
            progress.update(task, description=step.phase, completed=step.done_bytes, total=step.total_bytes)

        return pull(model, models_dir, show)
