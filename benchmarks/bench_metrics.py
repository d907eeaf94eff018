"""Live curves under load: pollers, streams, a long job, ingestion; and the same beside an MLflow tracking server.

    python benchmarks/bench_metrics.py [--seconds 30] [--pollers 200] [--streams 200] [--points 100000]
                                       [--mlflow .venv-exports/bin/mlflow] [--out benchmarks/results/metrics.json]

The API runs in a process of its own over SQLite, the clients in another; the job's worker is played by this process,
which writes points as the supervisor does. Prints and writes one JSON object.
"""

import argparse
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from backends import add_dataset, make_base_model  # noqa: E402
from bench_datasets import describe_machine  # noqa: E402

from core.domain.trainer_protocol import MetricPoint  # noqa: E402
from core.domain.training import metric_names  # noqa: E402
from core.services.attempts import lifecycle, recording  # noqa: E402
from core.services.attempts.claimed_job import ClaimedJob  # noqa: E402
from core.services.backend import Backend, open_backend  # noqa: E402
from core.settings import Settings  # noqa: E402

NAMES = [name for name in metric_names.METRICS if not name.startswith("kl") and name not in ("rewards", "logps")]
"""What a train point of DPO holds."""
POINTS_PER_SECOND = 50
BATCH_SECONDS = 0.25
INGESTION_BATCH = 500
START_SECONDS = 60
GOALS = {
    "poll_p95_seconds": 0.1,
    "visible_after_seconds": 2,
    "first_page_seconds": 0.1,
    "chart_seconds": 0.3,
    "ingested_points_per_second": 2000,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.2)


@contextmanager
def process(*command: str, **environment: str) -> Iterator[None]:
    silent = subprocess.DEVNULL
    child = subprocess.Popen(
        command, env=os.environ | environment, stdout=silent, stderr=silent, cwd=ROOT, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(child.pid, signal.SIGTERM)  # MLflow's server has children of its own
        child.wait(20)


def values(rng: random.Random) -> dict[str, float | None]:
    return {name: rng.random() for name in NAMES} | {"written_at": time.time()}


def points(steps: range, rng: random.Random) -> list[MetricPoint]:
    return [MetricPoint(stage="dpo", split="train", step=step, epoch=step / 1000, values=values(rng)) for step in steps]


class Writer(threading.Thread):
    """A job that takes `POINTS_PER_SECOND` steps a second; each batch is what the supervisor would have gathered."""

    def __init__(self, write: Any) -> None:
        super().__init__(daemon=True)
        self._write = write
        self.is_over = threading.Event()
        self.num_written = 0

    def run(self) -> None:
        started = time.monotonic()
        while not self.is_over.wait(BATCH_SECONDS):
            due = int((time.monotonic() - started) * POINTS_PER_SECOND)
            self._write(range(self.num_written, due))
            self.num_written = due


@contextmanager
def writing(write: Any) -> Iterator[Writer]:
    writer = Writer(write)
    writer.start()
    try:
        yield writer
    finally:
        writer.is_over.set()
        writer.join()


def load(options: argparse.Namespace, url: str, *paths: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks" / "metrics_load.py"), url, *paths]
    command += ["--pollers", str(options.pollers), "--streams", str(options.streams), "--seconds", str(options.seconds)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def new_job(backend: Backend, url: str) -> ClaimedJob:
    httpx.post(f"{url}/jobs", json={"base_model": "tiny", "dataset_id": "ds_1"}).raise_for_status()
    held = lifecycle.claim(backend, worker="bench", host="bench", device="cpu")
    assert held is not None
    lifecycle.begin(held)
    return held


def best_of(num_tries: int, work: Any) -> dict[str, float]:
    times = []
    for _ in range(num_tries):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return {"first": round(times[0], 4), "median": round(sorted(times)[num_tries // 2], 4)}


def ingest(num_points: int, write: Any) -> float:
    """Points a second."""
    started = time.perf_counter()
    for start in range(0, num_points, INGESTION_BATCH):
        write(range(start, min(num_points, start + INGESTION_BATCH)))
    return round(num_points / (time.perf_counter() - started))


def measure_preftune(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    make_base_model(folder / "models" / "tiny")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = Settings(data_dir=folder / "data", models_dir=folder / "models", lease_seconds=3600, broker_url="none")
    environment = {"PREFTUNE_DATA_DIR": str(folder / "data"), "PREFTUNE_MODELS_DIR": str(folder / "models")}
    environment |= {"PREFTUNE_PORT": str(port), "PREFTUNE_BROKER_URL": "none", "PREFTUNE_LOG_LEVEL": "warning"}
    environment["PREFTUNE_MAX_SHARE"] = "1"  # one address stands for all clients
    rng = random.Random(0)
    with (
        process(sys.executable, "-m", "cli.main", "api", **environment),
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        wait_for(f"{url}/health/live")
        backend = open_backend(settings)
        add_dataset(backend)
        live = new_job(backend, url)
        with writing(lambda steps: recording.record_points(live, points(steps, rng))):
            time.sleep(1)
            path = f"/jobs/{live.job_id}"
            under_load = load(options, url, path + "/metrics?after={after}", f"{path}/stream?after=1.0")
        long = new_job(backend, url)
        rate = ingest(options.points, lambda steps: recording.record_points(long, points(steps, rng)))
        path = f"/jobs/{long.job_id}/metrics"
        chart = {"max_points": "1000", "names": "loss,rewards/margins"}
        result = {
            "under_load": under_load,
            "ingested_points_per_second": rate,
            "long_job_points": options.points,
            "first_page_seconds": best_of(5, lambda: http.get(path).raise_for_status()),
            "chart_seconds": best_of(5, lambda: http.get(path, params=chart).raise_for_status()),
            "chart_of_all_values_seconds": best_of(3, lambda: http.get(path, params={"max_points": 1000})),
        }
        backend.close()
    return result


def measure_mlflow(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same steps and values through the tracking server's REST interface; it has no streams, so only polls."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = (options.mlflow, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    stores = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder / "runs"))
    rng = random.Random(0)
    with process(*server, *stores), httpx.Client(base_url=f"{url}/api/2.0/mlflow", timeout=120) as http:
        wait_for(f"{url}/health")

        def new_run() -> str:
            answer = http.post("/runs/create", json={"experiment_id": "0", "start_time": int(time.time() * 1000)})
            run_id: str = answer.raise_for_status().json()["run"]["info"]["run_id"]
            return run_id

        def write(run_id: str, steps: range) -> None:
            now = int(time.time() * 1000)
            metrics = [
                {"key": name, "value": value, "timestamp": now, "step": step}
                for step in steps
                for name, value in values(rng).items()
            ]
            for start in range(0, len(metrics), 1000):  # the most that one request may hold
                body = {"run_id": run_id, "metrics": metrics[start : start + 1000]}
                http.post("/runs/log-batch", json=body).raise_for_status()

        live, long = new_run(), new_run()
        history = "/api/2.0/mlflow/metrics/get-history?metric_key=loss&max_results=1000&run_id="
        with writing(lambda steps: write(live, steps)) as writer:
            time.sleep(1)
            under_load = load(options, url, history + live)
        rate = ingest(options.mlflow_points, lambda steps: write(long, steps))
        return {
            "under_load": under_load | {"written_points": writer.num_written},
            "ingested_points_per_second": rate,
            "long_job_points": options.mlflow_points,
            "first_page_seconds": best_of(5, lambda: http.get(f"{url}{history}{long}").raise_for_status()),
        }


def versions(mlflow: str | None) -> dict[str, str]:
    found = {"python": platform.python_version()}
    found |= {package: version(package) for package in ("sqlalchemy", "orjson", "uvicorn", "preftune")}
    if mlflow:
        found["mlflow"] = subprocess.run(
            (mlflow, "--version"), check=True, capture_output=True, text=True
        ).stdout.split()[-1]
    return found


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """How many times as fast we are."""
    slow, quick = theirs["under_load"]["poll_seconds"]["p95"], ours["under_load"]["poll_seconds"]["p95"]
    return {
        "poll_p95": round(slow / quick, 1),
        "ingestion": round(ours["ingested_points_per_second"] / theirs["ingested_points_per_second"], 1),
        "first_page": round(theirs["first_page_seconds"]["median"] / ours["first_page_seconds"]["median"], 1),
    }


def report(result: dict[str, Any], out: Path | None) -> None:
    """Also of a part, so that what was measured is kept should the rest fail."""
    text = json.dumps(result, indent=2)
    print(text, flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--mlflow")
    parser.add_argument("--mlflow-points", type=int, default=5_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "versions": versions(options.mlflow),
        "goals": GOALS,
    }
    with tempfile.TemporaryDirectory() as folder:
        result["preftune"] = measure_preftune(options, Path(folder))
    report(result, options.out)
    if options.mlflow:
        with tempfile.TemporaryDirectory() as folder:
            result["mlflow"] = measure_mlflow(options, Path(folder))
        result["times_as_fast_as_mlflow"] = ratios(result["preftune"], result["mlflow"])
        report(result, options.out)


if __name__ == "__main__":
    main()
