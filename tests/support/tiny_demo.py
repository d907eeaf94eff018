"""`preftune demo` on the model `tiny` of the models folder: `python tiny_demo.py demo …`."""

from pathlib import Path

import cli.demo
import cli.model_pull
from cli.main import app
from core.base_models.directory import BaseModel, get_base_model

NAME = "tiny"


def already_there(name: str, models_dir: Path) -> BaseModel:
    return get_base_model(models_dir, name)


if __name__ == "__main__":
    cli.demo.BASE_MODEL = NAME
    cli.model_pull.pull_with_progress = already_there
    app()
