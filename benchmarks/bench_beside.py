"""This checkout beside another one: start of API and worker, an upload, claims, training steps, in turn.

    python benchmarks/bench_beside.py OTHER_CHECKOUT [BASE_MODEL_FOLDER] [--rounds 5] [--output FILE]

Processor seconds of the process and its children, so that a busy machine disturbs little; both run on this interpreter
and its packages, one after the other, each round the other way round. Prints one JSON object: median and all values.
Without a base model no steps are taken; with `PYTHONDONTWRITEBYTECODE` every process compiles what it loads.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
from bench_datasets import describe_machine

ROOT = Path(__file__).resolve().parents[1]
NUM_PAIRS = 20_000
SECONDS = 300
CLAIMS = """
import json, sys, tempfile, time
from pathlib import Path
import bench_jobs
lifecycle = getattr(bench_jobs, "lifecycle", None) or bench_jobs.attempts
with tempfile.TemporaryDirectory() as folder, bench_jobs.migrated(None, "sqlite", Path(folder)) as backend:
    bench_jobs.fill(backend, 2000, 4)
    started = time.process_time()
    for _ in range(200):
        assert lifecycle.claim(backend, worker="w", host="h", device="cpu") is not None
    print((time.process_time() - started) / 200)
"""


def environment(checkout: Path, folder: Path, **settings: object) -> dict[str, str]:
    parts = ("", "client", "benchmarks", "tests", "tests/support")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
    own = {"DATA_DIR": folder / "data", "MODELS_DIR": folder / "models", "DEVICE": "cpu", "NUM_THREADS": 1, **settings}
    paths = os.pathsep.join(str(checkout / part) for part in parts)
    return kept | {"PYTHONPATH": paths} | {f"PREFTUNE_{name}": str(value) for name, value in own.items()}


def spent(process: psutil.Process) -> float:
    """Processor seconds of a process and its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


@contextmanager
def running(checkout: Path, folder: Path, kind: str, **settings: object) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "cli.main", kind]
    with (folder / f"{kind}.log").open("ab") as log:
        process = psutil.Popen(
            command, env=environment(checkout, folder, **settings), cwd=folder, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(SECONDS)


def until(is_true: Callable[[], bool], process: psutil.Process) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert process.is_running(), "ended before it was ready"
        assert time.monotonic() < deadline, "not ready in time"
        time.sleep(0.05)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def service(checkout: Path, folder: Path, port: int) -> dict[str, float]:
    migrate = [sys.executable, "-m", "cli.main", "migrate"]
    subprocess.run(migrate, env=environment(checkout, folder), cwd=folder, check=True)
    (folder / "models").mkdir()
    rows = (
        {"prompt": f"Question {n}?", "chosen": f"Yes, {n}. " * 20, "rejected": f"No {n} " * 20}
        for n in range(NUM_PAIRS)
    )
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    url = f"http://127.0.0.1:{port}"
    with running(checkout, folder, "api", PORT=port) as process:
        until(lambda: is_ready(url), process)
        started = spent(process)
        key = folder / "data" / "local-key"  # the first release had none
        headers = {"Authorization": f"Bearer {key.read_text().strip()}"} if key.exists() else {}
        answer = httpx.post(f"{url}/datasets", content=content, headers=headers, timeout=SECONDS)
        assert answer.status_code == 201, answer.text[:300]
        uploaded = spent(process) - started
    pulse = folder / "pulse"
    with running(checkout, folder, "worker", PULSE_PATH=pulse) as process:
        until(pulse.exists, process)
        worker = spent(process)
    return {"api start": started, "worker start": worker, f"upload of {len(content) >> 20} MiB": uploaded}


def claim(checkout: Path, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-c", CLAIMS]
    done = subprocess.run(command, env=environment(checkout, folder), cwd=folder, check=True, stdout=subprocess.PIPE)
    return {"claim": float(done.stdout)}


def step(checkout: Path, folder: Path, model: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (ROOT / "examples/house-style.jsonl").read_text().splitlines()[:16]]
    rows = [{name: flat(row[name]) for name in ("prompt", "chosen", "rejected")} for row in rows]
    settings = {"threads": 1, "rows": rows, "model": str(model), "scratch": str(folder / "encoded"), "lora": False}
    settings |= {"precision": "bf16", "batch_size": 4, "result": str(folder / "result.json")}
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, checkout / "benchmarks" / "contender_engine.py", folder / "settings.json"]
    subprocess.run(command, env=environment(checkout, folder), cwd=folder, check=True)
    result = json.loads((folder / "result.json").read_text())
    return {"step": result["cpu_seconds"] / len(result["step_seconds"])}


def flat(value: object) -> str:
    """Return the text of a column: a string, or the contents of its messages."""
    return value if isinstance(value, str) else "\n".join(message["content"] for message in value)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    both = {"before": arguments.other.resolve(), "now": ROOT}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(arguments.rounds):
        for name in sorted(both, reverse=bool(number % 2)):
            with TemporaryDirectory() as scratch:
                folder, checkout = Path(scratch), both[name]
                taken = service(checkout, folder, 18_500 + number)
                taken |= claim(checkout, folder)
                if arguments.model:
                    taken |= step(checkout, folder, arguments.model.resolve())
            for what, seconds in taken.items():
                found[what][name].append(round(seconds, 5))
            print(name, taken, file=sys.stderr)
    commits = {
        name: subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=path, text=True).strip()
        for name, path in both.items()
    }
    medians = {
        what: {name: statistics.median(values) for name, values in sides.items()} for what, sides in found.items()
    }
    text = json.dumps(
        {"machine": describe_machine(), "commits": commits, "median_cpu_seconds": medians, "all": found}, indent=1
    )
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
