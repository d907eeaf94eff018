"""Other projects while 45 readers wait and the store says nothing: p95 of `GET /jobs`, slowest `/health/live`.

    python benchmarks/bench_waiting.py [--seconds 10]

An API of its own on loopback (SQLite, a folder as store); the store's reads and checks are made to hang.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from api_server import RunningApi, pairs, serve
from backends import claim, publication

from core.domain.access import Scope
from core.services.access import api_keys, projects
from core.services.attempts import lifecycle

NUM_READERS = 45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as api:
        print(json.dumps({"load_before": round(load, 2)} | _measure(api, seconds)))


def _measure(api: RunningApi, seconds: float) -> dict[str, float | int]:
    job_id = str(api.submit(sft="skip")["id"])
    held = claim(api.backend)
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    body = {"items": [{"prompt": "p", "response": "r"}]}
    score_id = api.http.post(f"/jobs/{job_id}/scores", json=body).json()["id"]
    dataset_id = api.http.post("/datasets", content=pairs()).json()["id"]
    projects.create(api.backend, "other")
    reader = api_keys.create(api.backend, "default", "reader", Scope.READ).token
    other = api_keys.create(api.backend, "other", "other", Scope.READ).token
    silence = threading.Event()
    api.backend.store.check = lambda: silence.wait(120)  # type: ignore[method-assign]
    api.backend.store.read = lambda *_: iter([b""] if silence.wait(120) else [])  # type: ignore[method-assign]
    paths = [
        f"/jobs/{job_id}/scores/{score_id}?wait={int(seconds) + 5}",
        f"/datasets/{dataset_id}/rows",
        "/health/ready",
    ]
    crowd = threading.Thread(target=lambda: asyncio.run(_crowd(api.url, reader, paths * NUM_READERS)))
    crowd.start()
    time.sleep(2)
    try:
        return asyncio.run(_others(api.url, other, seconds))
    finally:
        silence.set()
        crowd.join()


async def _crowd(url: str, key: str, paths: list[str]) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=150, limits=httpx.Limits()) as http:
        await asyncio.gather(*(http.get(path) for path in paths), return_exceptions=True)


async def _others(url: str, key: str, seconds: float) -> dict[str, float | int]:
    jobs: list[float] = []
    live: list[float] = []
    deadline = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        while time.monotonic() < deadline:
            for path, times in (("/jobs", jobs), ("/health/live", live)):
                started = time.monotonic()
                (await http.get(path)).raise_for_status()
                times.append((time.monotonic() - started) * 1000)
            await asyncio.sleep(0.02)
    return {
        "num_requests": len(jobs),
        "jobs_p50_ms": round(statistics.median(jobs), 1),
        "jobs_p95_ms": round(statistics.quantiles(jobs, n=20)[-1], 1),
        "live_p95_ms": round(statistics.quantiles(live, n=20)[-1], 1),
        "live_max_ms": round(max(live), 1),
    }


if __name__ == "__main__":
    main()
