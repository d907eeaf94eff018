"""Lists of 10,000 jobs: answers of `GET /jobs`, and the first paint of the dashboard's list in a real Chromium.

`python benchmarks/bench_job_lists.py`: a service of its own over SQLite on loopback; medians in milliseconds, as JSON.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from api_server import RunningApi, serve  # noqa: E402
from browser import chromium, open_page  # noqa: E402

from core.database.tables.jobs import Job  # noqa: E402

NUM_JOBS = 10_000
REPEATS = 9
QUERIES = ("", "sort=-accuracy", "search=job+99", "search=not+there", "tag=b", "sort=name&search=9")
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def fill(api: RunningApi) -> None:
    first = api.submit(name="seed", metadata={"tags": "a, b", "notes": "a note"})

    def work(session: Session) -> None:
        seed = session.get_one(Job, first["id"])
        columns = {column.key: getattr(seed, column.key) for column in Job.__mapper__.column_attrs}
        session.execute(insert(Job), [columns | one(number) for number in range(NUM_JOBS)])

    api.backend.database.write(work)


def one(number: int) -> dict[str, Any]:
    figure = {"value": (number * 7919 % 1000) / 1000, "low": 0.1, "high": 0.9}
    held_out = {"num_rows": 30, "loss": figure, "reward_accuracy": figure, "reward_margin": figure}
    results = {"step": 1, "held_out": held_out, "training": None}
    return {"id": f"job_00{number:024d}", "name": f"job {number}", "results": results}


def answer_ms(api: RunningApi, query: str) -> float:
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        response = api.http.get(f"/jobs?limit=20&{query}")
        taken.append(1000 * (time.perf_counter() - started))
        assert response.status_code == 200, response.text
    return statistics.median(taken)


def paints_ms(api: RunningApi) -> dict[str, float]:
    paints, rows = [], []
    with chromium() as browser:
        for _ in range(REPEATS):
            with open_page(browser, api.url) as watched:
                watched.page.wait_for_selector("tbody tr")
                rows.append(watched.page.evaluate("performance.now()"))
                paints.append(watched.page.evaluate(_FIRST_PAINT))
    return {"first_paint": statistics.median(paints), "rows_shown": statistics.median(rows), "least_paint": min(paints)}


def main() -> None:
    with TemporaryDirectory() as folder, serve(Path(folder)) as api:
        fill(api)
        answers = {query or "newest": round(answer_ms(api, query)) for query in QUERIES}
        paints = {name: round(value) for name, value in paints_ms(api).items()}
    measured = {"jobs": NUM_JOBS, "answers_ms": answers, "paints_ms": paints, "load_1min": os.getloadavg()[0]}
    print(json.dumps(measured, indent=2), file=sys.stderr)


if __name__ == "__main__":
    main()
