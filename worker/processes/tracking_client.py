"""Process with the client of one tracking server: reads lines from stdin and ends with them.

`{"client", "options", "job_id", "spec"}` comes first, then `{"points": […]}` as they come, at last `{"status": …}`.
Started by `worker.attempt.records.tracking`, which kills it when the time is over: here a server
that is away is waited for.
"""

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

MAX_METRICS = 1000
"""Metrics in one request to MLflow, by its own limit."""
_MAX_PARAM_CHARS = 500
_MAX_PAUSE_SECONDS = 30.0
_WORKER = os.getppid()
_MLFLOW_ENDS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}

Point = dict[str, Any]


class Sink(Protocol):
    def open(self, job_id: str, spec: dict[str, Any]) -> None: ...

    def write(self, points: list[Point]) -> None: ...

    def close(self, status: str | None) -> None:
        """End the run. `status`: how the job ended; None: its attempt did, and the job continues."""


class MlflowSink:
    """One MLflow run for each job, found again by its tag; metrics are `<stage>/<split>/<name>`."""

    def __init__(self, options: dict[str, str]) -> None:
        self._entities = importlib.import_module("mlflow.entities")
        self._client = importlib.import_module("mlflow").MlflowClient(tracking_uri=options["tracking_uri"])
        self._experiment = options["experiment"]
        self._run_id = ""

    def open(self, job_id: str, spec: dict[str, Any]) -> None:
        known = self._client.get_experiment_by_name(self._experiment)
        experiment_id = known.experiment_id if known else self._client.create_experiment(self._experiment)
        runs = self._client.search_runs([experiment_id], f"tags.`preftune.job_id` = '{job_id}'", max_results=1)
        if runs:
            self._run_id = runs[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return
        name, words = run_names(job_id, spec)
        tags = {"preftune.job_id": job_id} | {f"tag.{word}": "true" for word in words}
        self._run_id = self._client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
        params = [self._entities.Param(name, value[:_MAX_PARAM_CHARS]) for name, value in flatten(spec)]
        self._client.log_batch(self._run_id, params=params[:100])

    def write(self, points: list[Point]) -> None:
        metrics = [
            self._entities.Metric(f"{point['stage']}/{point['split']}/{name}", value, point["at"], point["step"])
            for point in points
            for name, value in point["values"].items()
        ]
        for start in range(0, len(metrics), MAX_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + MAX_METRICS])

    def close(self, status: str | None) -> None:
        if status in _MLFLOW_ENDS:
            self._client.set_terminated(self._run_id, _MLFLOW_ENDS[status])


class WandbSink:
    """One Weights & Biases run for each job, with the job's id.

    Steps are values of their own, `<stage>/step`: W&B's own may not go back, and those of a resumed job do.
    """

    def __init__(self, options: dict[str, str]) -> None:
        self._wandb = importlib.import_module("wandb")
        self._project = options["project"]
        self._run: Any = None

    def open(self, job_id: str, spec: dict[str, Any]) -> None:
        settings = self._wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True)
        name, tags = run_names(job_id, spec)
        self._run = self._wandb.init(
            project=self._project, id=job_id, name=name, tags=tags, resume="allow", config=spec, settings=settings
        )
        for stage in ("sft", "dpo", "reward"):
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def write(self, points: list[Point]) -> None:
        for point in points:
            stage, split = point["stage"], point["split"]
            values = {f"{stage}/{split}/{name}": value for name, value in point["values"].items()}
            self._run.log(values | {f"{stage}/step": point["step"]})

    def close(self, status: str | None) -> None:
        self._run.finish(exit_code=1 if status == "failed" else 0)


SINKS: dict[str, Callable[[dict[str, str]], Sink]] = {"mlflow": MlflowSink, "wandb": WandbSink}


def run_names(job_id: str, spec: dict[str, Any]) -> tuple[str, list[str]]:
    """Return name and tags of the job's run, as its settings ask for."""
    tracking = spec.get("tracking") or {}
    return tracking.get("run_name") or job_id, list(tracking.get("tags", ()))


def flatten(spec: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested settings: `{"dpo": {"epochs": 1}}` becomes `dpo.epochs`, `1`."""
    for name, value in spec.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def persist(work: Callable[[], None]) -> None:
    """Retry until it works or the worker is gone, which bounds time and queue."""
    pause = 0.5
    while os.getppid() == _WORKER:
        try:
            work()
            return
        except Exception as error:  # noqa: BLE001 - whatever a client raises, the server may answer later
            print(f"live export: {type(error).__name__}: {error}"[:500], file=sys.stderr, flush=True)  # noqa: T201
            time.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(_MAX_PAUSE_SECONDS, 2 * pause)


def main() -> None:
    lines = map(json.loads, sys.stdin.buffer)
    first = next(lines)
    sink = SINKS[first["client"]](first["options"])
    persist(lambda: sink.open(first["job_id"], first["spec"]))
    status = None
    for message in lines:
        if "points" in message:
            persist(partial(sink.write, message["points"]))
        else:
            status = message["status"]
    persist(lambda: sink.close(status))


if __name__ == "__main__":
    main()
