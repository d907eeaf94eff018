"""`make test-faults`: many runs of each row, in parts. `python -m faults.volume [row …] [--minutes 60]`

A part goes on where the parts before have stopped; each leaves a file in benchmarks/results/faults/ with its seeds and
what came out. A violation prints its seed, with which it can be run again: `--seed N`. `--table` shows all parts.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from faults.grounds import Grounds
from faults.outcome import Outcome, Row
from faults.rows import ROWS

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "faults"


def results_of(row: Row) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{row.name}-*.json"))]


def clean_count(part: dict[str, Any]) -> int:
    """A run with a violation does not bring its row nearer to the goal."""
    return int(part["count"] - sum(outcome["count"] for outcome in part["violations"]))


def run_row(grounds: Grounds, row: Row, deadline: float, max_runs: int, seeds: list[int] | None = None) -> None:
    if lack := row.find_lack():
        print(f"{row.name}: cannot be run here: {lack}")
        return
    parts = results_of(row)
    goal = row.goal
    done = sum(clean_count(part) for part in parts)
    next_seed = max((part["last_seed"] + 1 for part in parts), default=0)
    first_seed, left = next_seed, goal - done
    if seeds is None and left <= 0:
        print(f"{row.name}: {done} of {goal} are done")
        return
    outcomes: list[Outcome] = []
    lock = threading.Lock()
    started = time.monotonic()

    def work() -> None:
        nonlocal next_seed
        while True:
            with lock:
                counted = sum(outcome.count for outcome in outcomes if not outcome.violations)
                if seeds is not None and not seeds:
                    return
                is_done = counted >= left or row.is_over(next_seed) or next_seed - first_seed >= max_runs
                if time.monotonic() > deadline or (seeds is None and is_done):
                    return
                seed = seeds.pop(0) if seeds is not None else next_seed
                next_seed += seeds is None
            outcome = run_one(grounds, row, seed)
            with lock:
                outcomes.append(outcome)
                show(row, outcome, len(outcomes))
                if seeds is None:  # after each run: a part that is broken off has not run for nothing
                    write_part(row, first_seed, outcomes, time.monotonic() - started)

    with ThreadPoolExecutor(row.num_parallel) as pool:
        for future in [pool.submit(work) for _ in range(row.num_parallel)]:
            future.result()
    num_broken = sum(bool(outcome.violations) for outcome in outcomes)
    print(f"{row.name}: {sum(outcome.count for outcome in outcomes)} {row.unit}, {num_broken} runs with violations")
    print("\n".join(distributions(row)))


def run_one(grounds: Grounds, row: Row, seed: int) -> Outcome:
    grounds.num_apis = row.num_apis
    try:
        return row.run(grounds, seed, row.trainer)
    except Exception as error:  # noqa: BLE001 - one broken run must not hide the others
        faults = [f"the run itself failed: {type(error).__name__}: {error}"[:1000]]
        world = grounds.worlds.get(threading.get_ident())
        if world is not None and not world.is_closed:
            faults += world.last_words()
            world.close()
        return Outcome(seed, "?", 0, faults)


def show(row: Row, outcome: Outcome, number: int) -> None:
    print(f"{row.name} {number}: seed {outcome.seed} ({outcome.setting}), {outcome.count} {row.unit}", flush=True)
    for violation in outcome.violations:
        print(f"  VIOLATION {violation}", flush=True)


def write_part(row: Row, first_seed: int, outcomes: list[Outcome], seconds: float) -> None:
    outcomes = sorted(outcomes, key=lambda outcome: outcome.seed)
    notes: dict[str, list[Any]] = {}
    for outcome in outcomes:
        for name, value in outcome.notes.items():
            notes.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    part = {
        "row": row.name,
        "unit": row.unit,
        "commit": commit(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "num_cpus": os.cpu_count(),
        "first_seed": first_seed,
        "last_seed": outcomes[-1].seed,
        "num_runs": len(outcomes),
        "count": sum(outcome.count for outcome in outcomes),
        "settings": dict(Counter(outcome.setting.split(" ")[0] for outcome in outcomes)),
        "violations": [asdict(outcome) for outcome in outcomes if outcome.violations],
        "notes": notes,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{row.name}-{first_seed:05d}.json"
    path.write_text(json.dumps(part, indent=1, sort_keys=True) + "\n")


def table() -> str:
    """What all parts have added up to, in Markdown."""
    lines = ["| row | unit | goal | clean | runs | seeds | with violations |", "|---|---|---|---|---|---|---|"]
    for row in ROWS.values():
        parts = results_of(row)
        seeds = f"{min(p['first_seed'] for p in parts)}–{max(p['last_seed'] for p in parts)}" if parts else "–"
        done, runs = sum(clean_count(part) for part in parts), sum(part["num_runs"] for part in parts)
        broken = sum(len(p["violations"]) for p in parts)
        lines.append(f"| {row.name} | {row.unit} | {row.goal} | {done} | {runs} | {seeds} | {broken} |")
    return "\n".join(lines)


def distributions(row: Row) -> list[str]:
    """What all parts of the row have noted: times by their quantiles, words by their number."""
    notes: dict[str, list[Any]] = {}
    for part in results_of(row):
        for name, values in part["notes"].items():
            notes.setdefault(name, []).extend(values)
    return [f"  {row.name} {name}: {_summary(values)}" for name, values in sorted(notes.items()) if values]


def _summary(values: list[Any]) -> str:
    if all(isinstance(value, int | float) for value in values):
        ranked = sorted(values)
        half, most = (ranked[min(len(ranked) - 1, int(share * len(ranked)))] for share in (0.5, 0.95))
        return f"{len(ranked)} times, median {half:.1f}, 95 % {most:.1f}, longest {ranked[-1]:.1f}"
    return ", ".join(f"{count} {name}" for name, count in Counter(map(str, values)).most_common(12))


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="default: all")
    parser.add_argument("--minutes", type=float, default=60, help="stop after so long (default 60)")
    parser.add_argument("--runs", type=int, default=10**6, help="at most so many of each row")
    parser.add_argument("--seed", type=int, nargs="*", help="run these again; nothing is written")
    parser.add_argument("--table", action="store_true", help="only show what has been done so far")
    chosen = parser.parse_args()
    if chosen.table:
        print("\n".join([table(), *(line for name in chosen.rows or ROWS for line in distributions(ROWS[name]))]))
        return 0
    deadline = time.monotonic() + 60 * chosen.minutes
    with Grounds.open() as grounds:
        for name in chosen.rows or list(ROWS):
            if time.monotonic() < deadline:
                run_row(grounds, ROWS[name], deadline, chosen.runs, list(chosen.seed) if chosen.seed else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
