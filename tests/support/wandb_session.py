"""What a customer's script does with W&B's importer of OpenAI's jobs; run by the Python of an environment with both.

`python wandb_session.py <url> <job id> <folder>`: `WandbLogger.sync` reads the job through OpenAI's client into an
offline run; what it gave to the run goes to stdout as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import wandb
from openai import OpenAI
from wandb.integration.openai.fine_tuning import WandbLogger


def main(url: str, job_id: str, folder: Path) -> None:
    run = wandb.init(project="mine", dir=folder, mode="offline", settings=wandb.Settings(console="off", silent=True))
    # What only W&B's server could say: whether it has this run, and these files, already.
    WandbLogger._get_wandb_run = classmethod(lambda cls, path: None)
    WandbLogger._get_wandb_artifact = classmethod(lambda cls, path: None)
    logged: list[dict[str, Any]] = []
    inputs: dict[str, list[str]] = {}
    summary: dict[str, str] = {}
    log, end = run.log, run.finish

    def keep(values: dict[str, Any], step: int | None = None) -> None:
        logged.append({"step": step} | {name: value for name, value in values.items() if isinstance(value, float)})
        log(values, step=step)

    def use(artifact: wandb.Artifact, aliases: list[str]) -> None:  # the run's own needs a server
        contents = [Path(entry.local_path).read_text() for entry in artifact.manifest.entries.values()]
        inputs[artifact.name] = contents

    def finish() -> None:
        summary.update({name: str(run.summary.get(name)) for name in ("fine_tuned_model", "status")})
        end()

    run.log, run.use_artifact, run.finish = keep, use, finish
    assert WandbLogger.sync(fine_tune_job_id=job_id, openai_client=OpenAI(base_url=f"{url}/v1"), project="mine")
    config = {name: str(value) for name, value in dict(run.config).items()}
    print(json.dumps({"logged": logged, "inputs": inputs, "config": config, "summary": summary}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
