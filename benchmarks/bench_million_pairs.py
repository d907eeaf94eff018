"""Does memory grow with the data set? Pairs are tokenised to disk and trained on, each size in fresh processes.

    python benchmarks/bench_million_pairs.py --model <dir of a tiny model> [--rows 10000 1000000] [--steps 200]

Training is SimPO, which needs no reference pass, and ends after `--steps` steps of 16 pairs; the order is drawn over
all rows. Memory is sampled from the operating system: `anonymous` is what a process holds itself, `file` are pages of
the mapped files, which the system takes back when it needs them. Prints one JSON object per size.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import torch

from core.domain.dataset_rows import DatasetKind
from core.tokenization.encode_file import encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData
from core.training.failures import TrainingStopped
from core.training.observer import CheckpointRef, JsonValue, MetricPoint, Sample, Stage, StageOutput, StopRequest
from core.training.pipeline import run
from core.training.plan import DpoPlan, TrainingPlan

WORDS = "once upon a time there was little girl who had big red ball and the dog ran to play with him in park".split()  # noqa: SIM905
BATCH_SIZE = 16
ORDERLY_END = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--child", choices=["encode", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child == "encode":
        encode(arguments.model, arguments.work)
    elif arguments.child == "train":
        train(arguments.model, arguments.work, arguments.steps)
    else:
        for num_rows in arguments.rows:
            with tempfile.TemporaryDirectory() as work:
                print(json.dumps(measure(arguments, Path(work), num_rows)), flush=True)


def measure(arguments: argparse.Namespace, work: Path, num_rows: int) -> dict[str, object]:
    write_rows(work / "rows.jsonl", num_rows)
    command = [sys.executable, __file__, "--model", str(arguments.model), "--work", str(work), "--child"]
    started = time.perf_counter()
    encode_peak = watch([*command, "encode"])
    encode_seconds = time.perf_counter() - started
    watch([*command, "train", "--steps", str(arguments.steps)])
    training = json.loads((work / "train.json").read_text())
    return {
        "rows": num_rows,
        "rows_megabytes": round((work / "rows.jsonl").stat().st_size / 1e6, 1),
        "encode_seconds": round(encode_seconds, 1),
        "encode_peak_megabytes_of_all_processes": round(encode_peak / 1e6),
        **training,
    }


def write_rows(path: Path, num_rows: int) -> None:
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for line in range(1, num_rows + 1):
            texts = {
                key: " ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for key in ("prompt", "chosen", "rejected")
            }
            file.write(json.dumps({"line": line, **texts}) + "\n")


def watch(command: Sequence[str]) -> int:
    """Runs it; the most proportional memory it and its children held together."""
    process = subprocess.Popen(command)
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        total = 0
        try:
            for member in [root, *root.children(recursive=True)]:
                total += member.memory_full_info().pss
        except psutil.Error:
            pass
        peak = max(peak, total)
        time.sleep(0.1)
    if process.returncode != ORDERLY_END:
        sys.exit(f"{command[-1]} failed")
    return peak


def encode(model: Path, work: Path) -> None:
    encode_file(
        work / "rows.jsonl",
        PairTokenizer.open(model),
        work / "encoded",
        kind=DatasetKind.PREFERENCE,
        max_length=256,
    )


class Sampler:
    """An observer that stops after some steps, and samples this process's memory at every one."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.samples_kb: list[dict[str, int]] = []
        self.started = time.perf_counter()
        self.first_step_seconds: float | None = None

    def point(self, point: MetricPoint) -> None:
        if self.first_step_seconds is None:
            self.first_step_seconds = time.perf_counter() - self.started
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        self.samples_kb.append({key: int(status[key].split()[0]) for key in ("RssAnon", "RssFile")})

    def stop_requested(self) -> StopRequest:
        return "abandon" if len(self.samples_kb) >= self.num_steps else "none"

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None: ...
    def stage_finished(self, stage: Stage) -> None: ...
    def stage_skipped(self, stage: Stage, reason: str) -> None: ...
    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None: ...
    def event(self, level: str, kind: str, message: str, data: Mapping[str, JsonValue]) -> None: ...
    def checkpoint(self, ref: CheckpointRef) -> None: ...
    def stage_output(self, output: StageOutput) -> None: ...
    def samples(self, step: int, samples: Sequence[Sample]) -> None: ...


def train(model: Path, work: Path, num_steps: int) -> None:
    started = time.perf_counter()
    num_rows = len(EncodedData.open(work / "encoded"))
    open_seconds = time.perf_counter() - started
    plan = TrainingPlan(
        base_model_dir=str(model),
        train_data=str(work / "encoded"),
        sft=None,
        dpo=DpoPlan(epochs=1, learning_rate=1e-5, batch_size=BATCH_SIZE),
        variant="simpo",
        beta=2.0,
        precision="fp32",
        checkpoint_every_steps=10**9,
        work_dir=str(work / "run"),
    )
    sampler = Sampler(min(num_steps, num_rows // BATCH_SIZE - 1))
    with contextlib.suppress(TrainingStopped):
        run(plan, sampler)  # type: ignore[arg-type]
    samples = sampler.samples_kb
    middle = samples[len(samples) // 2]
    result = {
        "open_seconds": round(open_seconds, 4),
        "first_step_after_seconds": round(sampler.first_step_seconds or 0.0, 2),
        "steps": len(samples),
        "anonymous_megabytes_first_middle_last": [round(s["RssAnon"] / 1e3) for s in (samples[0], middle, samples[-1])],
        "file_megabytes_first_middle_last": [round(s["RssFile"] / 1e3) for s in (samples[0], middle, samples[-1])],
        "torch": torch.__version__,
    }
    (work / "train.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
