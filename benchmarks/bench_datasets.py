"""Speed and memory of the data-set check: from a file of valid JSONL pairs to the report.

    python benchmarks/bench_datasets.py [--mib 200] [--workers 2] [--row-chars 1000] [--repeats 3]

Makes its own file of distinct pairs of English-like sentences, checks it in a child process as the API does, and prints
one JSON object: MB/s from file to report (best of the repeats, and all), rows, and the peak of the memory that the
checking processes hold together (proportional set size, sampled every 20 ms).
"""

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path

import psutil

from core.datasets.child import check_in_child
from core.datasets.options import CheckOptions

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


class PeakMemory(threading.Thread):
    """The greatest sum of the memory of all children of this process, shared pages counted once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.02):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--row-chars", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pairs.jsonl"
        num_rows = write_pairs(source, arguments.mib << 20, arguments.row_chars)
        num_bytes = source.stat().st_size
        memory = PeakMemory()
        memory.start()
        seconds = []
        for _ in range(arguments.repeats):
            begin = time.perf_counter()
            result = check_in_child(
                source,
                CheckOptions(),
                Path(folder),
                timeout_seconds=600,
                memory_bytes=512 << 20,
                num_workers=arguments.workers,
            )
            seconds.append(time.perf_counter() - begin)
            if result.verdict != "ready" or result.num_accepted != num_rows:
                raise SystemExit(f"the check went wrong: {result.verdict}, {result.num_accepted} of {num_rows} rows")
        memory.stop()
    print(
        json.dumps(
            {
                "num_bytes": num_bytes,
                "num_rows": num_rows,
                "num_workers": arguments.workers,
                "megabytes_per_second": round(num_bytes / min(seconds) / 1e6, 1),
                "all_megabytes_per_second": [round(num_bytes / value / 1e6, 1) for value in seconds],
                "peak_memory_mib": round(memory.peak_bytes / (1 << 20), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
