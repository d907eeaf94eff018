"""The comparison of 24 runs: its answer, and the first paint of its page in a real Chromium.

`python benchmarks/bench_comparison.py`: a service of its own over SQLite on loopback; medians in milliseconds, as JSON.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from api_server import RunningApi, serve  # noqa: E402 - its place is on the path now
from browser import chromium, open_page  # noqa: E402
from compared_jobs import make_sweep  # noqa: E402

NUM_RUNS = 24
REPEATS = 9
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    with TemporaryDirectory() as folder, serve(Path(folder)) as api:
        betas = [round(0.01 * number, 2) for number in range(1, NUM_RUNS + 1)]
        address = f"sweeps/{make_sweep(api, 'Which beta', betas)}/comparison"
        answer = answer_ms(api, address)
        paints = paints_ms(api, address)
    measured = {"runs": NUM_RUNS, "answer_ms": answer, **paints, "load_1min": round(os.getloadavg()[0], 1)}
    print(json.dumps(measured, indent=2), file=sys.stderr)


def answer_ms(api: RunningApi, address: str) -> int:
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        api.http.get(f"/{address}").raise_for_status()
        taken.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(taken))


def paints_ms(api: RunningApi, address: str) -> dict[str, int]:
    """Return medians of a page that is opened anew; the dashboard's own modules are kept by the browser."""
    sweep = address.split("/")[1]
    paints, shown = [], []
    with chromium() as browser:
        for _ in range(REPEATS):
            with open_page(browser, api.url) as watched:
                page = watched.page
                page.goto("about:blank")
                page.goto(f"/ui/#/comparison?sweep={sweep}")
                page.wait_for_selector("svg.scatter")
                shown.append(page.evaluate("performance.now()"))
                paints.append(page.evaluate(_FIRST_PAINT))
    return {"first_paint_ms": round(statistics.median(paints)), "picture_shown_ms": round(statistics.median(shown))}


if __name__ == "__main__":
    main()
