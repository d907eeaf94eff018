"""Data sets over HTTP: from the first byte of an upload to its report, what it costs in memory, and bombs.

    make bench-datasets            # 1 GiB of valid JSONL pairs, then two bombs; the result goes to benchmarks/results/
    python benchmarks/bench_datasets.py [--mib 1024] [--row-chars 1000] [--repeats 3] [--output FILE]
    python benchmarks/bench_datasets.py --beside FOLDER    # in turn with the API of another checkout, on the same file

Starts the API as a process of its own (SQLite, objects in a folder of this disk), makes a file of distinct pairs of
English-like sentences, uploads it with `POST /datasets` and waits for the 201, which comes when the original and the
rows are synced to the disk. Memory is the proportional set size, sampled four times a second: of the API's process, as
growth over its idle size; of the processes that check, together. Processor seconds are those of the API and its checks.
"""

import argparse
import gzip
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil

GOALS = {"megabytes_per_second": 60, "api_growth_mib": 64, "check_peak_mib": 512, "bomb_seconds": 5}
RESULTS = Path(__file__).parent / "results"
MIB = 1 << 20
WATCH_SECONDS = 0.25
"""A look at the memory of all processes takes 15 ms of a core: more often, and it would slow down what it watches."""

_WORDS = (  # noqa: SIM905
    "the of and to in is that for it with as was on are you this be have or what how not can will from they about "
    "which their there would when more some people time other into could them than then these two may first any way "
    "water use called number find long down day did get come made part over sound take little work know place year "
    "live back give most very after thing our just name good sentence man think say great where help through much "
    "before line right too mean old same tell boy follow came want show also around form three small set put end "
    "does another well large must big even such because turn here why ask went men read need land different home us"
).split()


def write_pairs(path: Path, num_bytes: int, row_chars: int) -> int:
    """Rows of about `row_chars` characters each, a third in each text; no two are alike. Returns their number."""
    rng = random.Random(7)
    sentences = [
        " ".join(rng.choices(_WORDS, k=rng.randint(5, 18))).capitalize() + rng.choice(".?!…") for _ in range(20_000)
    ]
    mean_chars = sum(map(len, sentences)) / len(sentences) + 1
    per_text = max(1, round(row_chars / 3 / mean_chars))
    written, num_rows = 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < num_bytes:
            texts = [" ".join(rng.choices(sentences, k=rng.randint(1, 2 * per_text))) for _ in range(3)]
            row = {"prompt": f"{num_rows}: {texts[0]}", "chosen": texts[1], "rejected": texts[2]}
            line = json.dumps(row, ensure_ascii=False) + "\n"
            written += len(line.encode())
            num_rows += 1
            file.write(line)
    return num_rows


class MemoryWatch(threading.Thread):
    """Peaks of the API's own process, and of all its children together, shared pages counted once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._stop_asked = threading.Event()
        self.idle_bytes = self._process.memory_full_info().pss
        self.peak_bytes = 0
        self.check_peak_bytes = 0

    def run(self) -> None:
        while not self._stop_asked.wait(WATCH_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_full_info().pss)
            children = 0
            for child in self._process.children(recursive=True):
                try:
                    children += child.memory_full_info().pss
                except psutil.Error:
                    continue
            self.check_peak_bytes = max(self.check_peak_bytes, children)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


@contextmanager
def running_api(folder: Path, tree: Path | None = None) -> Iterator[tuple[str, int]]:
    """URL and process id. `tree`: a checkout whose code is run instead of this one's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
    environment |= {
        "PREFTUNE_DATA_DIR": str(folder / "data"),
        "PREFTUNE_MODELS_DIR": str(folder / "models"),
        "PREFTUNE_BROKER_URL": "none",
        "PREFTUNE_PORT": str(port),
    }
    if tree is not None:
        environment["PYTHONPATH"] = f"{tree}{os.pathsep}{tree / 'client'}"
    command = [sys.executable, "-m", "cli.main", "api"]
    process = subprocess.Popen(command, env=environment, cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the API did not start")


def upload(url: str, path: Path) -> tuple[float, httpx.Response]:
    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(MIB):
                yield chunk

    headers = {"Content-Length": str(path.stat().st_size)}
    begin = time.perf_counter()
    response = httpx.post(f"{url}/datasets", content=chunks(), headers=headers, timeout=None)
    return time.perf_counter() - begin, response


def processor_seconds(pid: int) -> float:
    """Of the process and those of its children that have ended."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


class Uploads:
    """What the uploads to one API took."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self._pid = pid
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.growth: list[float] = []
        self.check_peaks: list[float] = []

    def warm_up(self, path: Path) -> None:
        """What the first request loads is not of the file that is measured."""
        upload(self._url, path)

    def measure(self, path: Path, num_rows: int) -> None:
        watch = MemoryWatch(self._pid)
        watch.start()
        before = processor_seconds(self._pid)
        took, response = upload(self._url, path)
        self.processor.append(round(processor_seconds(self._pid) - before, 1))
        watch.stop()
        if response.status_code != 201 or response.json()["num_accepted"] != num_rows:
            raise SystemExit(f"the upload went wrong: {response.status_code} {response.text[:500]}")
        httpx.delete(f"{self._url}/datasets/{response.json()['id']}")
        self.seconds.append(took)
        self.growth.append(round((watch.peak_bytes - watch.idle_bytes) / MIB, 1))
        self.check_peaks.append(round(watch.check_peak_bytes / MIB, 1))

    def result(self, num_bytes: int, num_rows: int) -> dict[str, Any]:
        return {
            "num_bytes": num_bytes,
            "num_rows": num_rows,
            "megabytes_per_second": round(num_bytes / min(self.seconds) / 1e6, 1),
            "all_megabytes_per_second": [round(num_bytes / value / 1e6, 1) for value in self.seconds],
            "processor_seconds": self.processor,
            "api_growth_mib": max(self.growth),
            "check_peak_mib": max(self.check_peaks),
        }


def measure_uploads(folder: Path, num_rows: int, repeats: int, beside: Path | None) -> dict[str, Any]:
    """This checkout's uploads, and `beside` in turn with them those of another one."""
    path = folder / "pairs.jsonl"
    num_bytes = path.stat().st_size
    with ExitStack() as running:
        measured = {"uploads": Uploads(*running.enter_context(running_api(folder / "this")))}
        if beside is not None:
            measured["beside"] = Uploads(*running.enter_context(running_api(folder / "other", beside)))
        for uploads in measured.values():
            uploads.warm_up(folder / "small.jsonl")
        for number in range(repeats):
            for uploads in list(measured.values())[:: -1 if number % 2 else 1]:
                uploads.measure(path, num_rows)
    found: dict[str, Any] = {name: uploads.result(num_bytes, num_rows) for name, uploads in measured.items()}
    if beside is not None:
        found["beside"]["commit"] = commit_of(beside)
        found["ratios"] = {
            "seconds": round(min(measured["uploads"].seconds) / min(measured["beside"].seconds), 3),
            "processor_seconds": round(min(measured["uploads"].processor) / min(measured["beside"].processor), 3),
        }
    return found


def commit_of(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure_bombs(url: str, folder: Path) -> dict[str, float]:
    bombs = {"1 GiB of zeros": (bytes(MIB) for _ in range(1024)), "150 MB of valid rows": valid_rows(150_000_000)}
    found = {}
    for name, chunks in bombs.items():
        path = folder / "bomb.gz"
        with gzip.open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
        seconds, response = upload(url, path)
        if response.status_code != 413:
            raise SystemExit(f"the bomb was answered {response.status_code}")
        found[name] = round(seconds, 2)
    return found


def valid_rows(num_bytes: int) -> Iterator[bytes]:
    row = b'{"prompt": "Which colour is the sky?", "chosen": "Blue, by day.", "rejected": "Green."}\n'
    for _ in range(num_bytes // (len(row) * 10_000)):
        yield row * 10_000


def describe_machine() -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load_before": [round(value, 1) for value in os.getloadavg()],
        "system": platform.platform(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--row-chars", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--beside", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        write_pairs(folder / "small.jsonl", 100_000, arguments.row_chars)
        num_rows = write_pairs(folder / "pairs.jsonl", arguments.mib * MIB, arguments.row_chars)
        measured = measure_uploads(folder, num_rows, arguments.repeats, arguments.beside)
        with running_api(folder / "bombs") as (url, _):
            bombs = measure_bombs(url, folder)
    packages = ("numpy", "orjson", "uvicorn", "h11", "zstandard", "preftune")
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine,
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        "goals": GOALS,
        "commit": commit_of(Path(__file__).resolve().parent),
        **measured,
        "bomb_seconds": bombs,
    }
    output = arguments.output or RESULTS / f"datasets-{result['date']}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
