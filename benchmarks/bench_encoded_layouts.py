"""Tokenised pairs on disk: our own layout beside Arrow, read by pyarrow and by the datasets library.

    python benchmarks/bench_encoded_layouts.py [--rows 1000000] [--batches 2000] [--model FOLDER --encode-rows 20000]

Writes the same random token ids (40 of a prompt, 40 and 40 of two responses at the mean) in both layouts, then reads
batches of 16 rows in a random order, each reader in a fresh process: seconds to open and to the first batch, rows a
second after that, and anonymous memory. With `--model` rows of English words are tokenised too, for what writing is a
part of. `datasets` needs the extra `hub`. Prints JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from core.domain.dataset_rows import DatasetKind
from core.domain.training import encoded_format
from core.tokenization.encode_file import encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData

BATCH_ROWS = 16
CHUNK_ROWS = 10_000
RECORD_BATCH_ROWS = 1_000
SCHEMA = pa.schema(
    [
        ("line", pa.int64()),
        ("prompt", pa.list_(pa.int32())),
        ("chosen", pa.list_(pa.int32())),
        ("rejected", pa.list_(pa.int32())),
        ("chosen_scored", pa.list_(pa.uint8())),
        ("rejected_scored", pa.list_(pa.uint8())),
    ]
)
Take = Callable[[np.ndarray], int]
"""Reads these rows; returns the number of their tokens."""


def chunks(num_rows: int) -> Any:
    """Lengths [n, 3] and token ids [sum] of up to CHUNK_ROWS rows at a time."""
    rng = np.random.default_rng(7)
    for begin in range(0, num_rows, CHUNK_ROWS):
        lengths = rng.integers(5, 76, (min(CHUNK_ROWS, num_rows - begin), 3))
        yield begin, lengths, rng.integers(0, 49_152, int(lengths.sum()), dtype=np.int32)


def write_own(folder: Path, num_rows: int) -> None:
    num_tokens = 0
    names = (encoded_format.TOKENS_FILE, encoded_format.SCORED_FILE, encoded_format.ROWS_FILE)
    tokens_file, scored_file, rows_file = ((folder / name).open("wb") for name in names)
    for begin, lengths, tokens in chunks(num_rows):
        ends = num_tokens + lengths.cumsum().reshape(lengths.shape)
        starts = ends - lengths
        lines = np.arange(begin, begin + len(lengths)) + 1
        table = np.column_stack([lines, starts[:, 0], starts[:, 1], starts[:, 2], ends[:, 2], np.zeros(len(lengths))])
        tokens.tofile(tokens_file)
        np.ones(len(tokens), np.uint8).tofile(scored_file)
        table.astype("<i8").tofile(rows_file)
        num_tokens += len(tokens)
    for file in (tokens_file, scored_file, rows_file):
        file.close()
    meta = {"version": encoded_format.VERSION, "kind": "preference", "num_rows": num_rows, "num_tokens": num_tokens}
    (folder / encoded_format.META_FILE).write_text(json.dumps(meta | {"digest": "0"}))


def write_arrow(folder: Path, num_rows: int) -> None:
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for begin, lengths, tokens in chunks(num_rows):
            starts = (lengths.cumsum() - lengths.reshape(-1)).reshape(lengths.shape)
            columns = [pa.array(np.arange(begin, begin + len(lengths)) + 1)]
            of_side = [column_of(tokens, starts[:, side], lengths[:, side]) for side in range(3)]
            ones = [pa.ListArray.from_arrays(side.offsets, np.ones(len(side.values), np.uint8)) for side in of_side[1:]]
            table = pa.Table.from_arrays(columns + of_side + ones, schema=SCHEMA)
            writer.write_table(table, max_chunksize=RECORD_BATCH_ROWS)


def column_of(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens[places]))


def open_own(folder: Path) -> Take:
    data = EncodedData.open(folder)

    def take(indices: np.ndarray) -> int:
        rows = [data.row(int(index)) for index in indices]
        return sum(int(row.prompt.sum() > 0) + len(row.prompt) + len(row.first) + len(row.second) for row in rows)

    return take


def open_arrow(folder: Path) -> Take:
    batches = list(pa.ipc.open_stream(pa.memory_map(str(folder / "rows.arrow"))))
    starts = np.cumsum([0] + [batch.num_rows for batch in batches])

    def take(indices: np.ndarray) -> int:
        total = 0
        for index in indices:
            number = int(np.searchsorted(starts, index, "right")) - 1
            row = batches[number].slice(int(index - starts[number]), 1)
            sides = [row.column(name).flatten().to_numpy() for name in ("prompt", "chosen", "rejected")]
            total += int(sides[0].sum() > 0) + sum(map(len, sides))
        return total

    return take


def open_datasets(folder: Path) -> Take:
    import datasets  # noqa: PLC0415 - of an extra, and it takes a second

    data = datasets.Dataset.from_file(str(folder / "rows.arrow")).with_format("numpy")

    def take(indices: np.ndarray) -> int:
        found = data[[int(index) for index in indices]]
        sides = [found[name] for name in ("prompt", "chosen", "rejected")]
        return sum(int(row.sum() > 0) for row in sides[0]) + sum(len(row) for side in sides for row in side)

    return take


READERS = {"own": open_own, "arrow": open_arrow, "datasets": open_datasets}
WRITERS = {"own": write_own, "arrow": write_arrow}


def read(name: str, folder: Path, num_rows: int, num_batches: int) -> dict[str, float]:
    """Runs in a process of its own."""
    order = np.random.default_rng(3).permutation(num_rows)
    before = anonymous_bytes()
    begin = time.perf_counter()
    take = READERS[name](folder)
    opened = time.perf_counter()
    take(order[:BATCH_ROWS])
    first = time.perf_counter()
    tokens = 0
    for number in range(1, num_batches + 1):
        place = number * BATCH_ROWS % (num_rows - BATCH_ROWS)
        tokens += take(order[place : place + BATCH_ROWS])
    done = time.perf_counter()
    return {
        "open_seconds": round(opened - begin, 3),
        "first_batch_seconds": round(first - begin, 3),
        "rows_per_second": round(num_batches * BATCH_ROWS / (done - first)),
        "anonymous_growth_mib": round((anonymous_bytes() - before) / 2**20, 1),
        "tokens": tokens,
    }


def anonymous_bytes() -> int:
    found = psutil.Process().memory_full_info()
    return int(found.rss - found.shared)


def tokenised_rows_per_second(model: Path, num_rows: int, folder: Path) -> float:
    words = "once upon a time there was little girl who had big red ball and".split()  # noqa: SIM905
    rng = np.random.default_rng(5)
    with (folder / "rows.jsonl").open("w") as file:
        for line in range(1, num_rows + 1):
            texts = {side: " ".join(rng.choice(words, 40)) for side in ("prompt", "chosen", "rejected")}
            file.write(json.dumps({"line": line, **texts}) + "\n")
    begin = time.perf_counter()
    tokenizer = PairTokenizer.open(model)
    encode_file(folder / "rows.jsonl", tokenizer, folder / "encoded", kind=DatasetKind.PREFERENCE, max_length=1024)
    return num_rows / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=2_000)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--encode-rows", type=int, default=20_000)
    parser.add_argument("--read", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read, arguments.folder, arguments.rows, arguments.batches)))
        return
    result: dict[str, Any] = {"rows": arguments.rows, "write": {}, "read": {}}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as work:
        for name, write in WRITERS.items():
            folder = Path(work) / name
            folder.mkdir()
            begin = time.perf_counter()
            write(folder, arguments.rows)
            seconds = round(time.perf_counter() - begin, 1)
            size = sum(path.stat().st_size for path in folder.iterdir())
            result["write"][name] = {"seconds": seconds, "megabytes": round(size / 1e6)}
        for name in READERS:
            folder = Path(work) / ("own" if name == "own" else "arrow")
            command = [sys.executable, __file__, "--read", name, "--folder", str(folder)]
            command += ["--rows", str(arguments.rows), "--batches", str(arguments.batches)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            result["read"][name] = json.loads(done.stdout) if done.returncode == 0 else done.stderr.splitlines()[-1]
        if arguments.model:
            rate = tokenised_rows_per_second(arguments.model, arguments.encode_rows, Path(work))
            result["tokenised_rows_per_second"] = round(rate)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
