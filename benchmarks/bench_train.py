"""DPO side by side: this engine and TRL's DPOTrainer, on the same pairs, in the same run, on this machine's CPU.

    make bench-train            every workload, full fine-tuning and LoRA; about an hour on two cores
    make bench-train QUICK=1    HH pairs, full fine-tuning, one step; a few minutes

Every contender runs in a process of its own, one after another, round by round, so that a machine that slows down
slows all of them. One step on tiny pairs warms up; then two of 8 pairs (`--pairs`, `--batch-size`). A reference pass
made beforehand is timed apart ("with reference" counts it in: one epoch from nothing). Contenders:

    trl-default   TRL as it comes: gradient checkpointing, reference beside the policy, padded to the longest
    trl-best      gradient checkpointing off, reference computed beforehand
    trl-malloc    the same with the allocator settings this project starts its trainer with
    trl-single    the same, one pair at a time with accumulation, so that little is padded (only with --only)
    earlier       this engine as it was at the commit (checked out for the run) or in the checkout that --earlier names
    preftune      this engine, with the settings this project starts its trainer with

Workloads beside `hh` and exact lengths: `ranked-4` and `ranked-7`, ranked lists of 4 and 7 answers cut from --data
(a step is 10 and 3 whole prompts), `ranked-files`, the ranked lists of --ranked in the order of the file, and
`system-300`, the same system prompt of 300 tokens before every pair. A pair costs TRL the same beside others of its
prompt as alone: of a ranked step it runs 12 pairs at even distances, 4 at a time.

`--busy 1 4` runs everything again beside so many loops of Python in the contender's own session, since Linux shares a
processor by session. A run goes on where an earlier one with the same --out stopped, and begins nothing after
--minutes.

TRL computes in bf16 by default; on a CPU that multiplies bf16 slower than float32, all contenders are given float32.
"""

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

from train_report import print_table, summarise, write_markdown
from workloads import (
    LENGTHS,
    RANKED,
    Pair,
    make_pairs,
    ranked_file,
    ranked_pairs,
    read_pairs,
    warm_up_pairs,
    with_system_prompt,
)

from core.training.model.precision import faster_precision
from worker.child_environment import CPU_LIBRARIES

ROOT = Path(__file__).resolve().parent
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**34), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
BEST = {"gradient_checkpointing": False, "precompute_ref_log_probs": True}
WORKLOADS = ("hh", *LENGTHS)
SHARING = (*RANKED, "ranked-files", "system-300")
"""Only when they are named."""
STEPS = {"ranked-4": (60, 60), "ranked-7": (63, 63), "ranked-files": (60, 60)}
"""Pairs in all and in a step, where not 16 and 8; steps of ranked lists take whole prompts."""
TRL_PAIRS, TRL_ROWS = 12, 4
"""Of a step of ranked lists."""
MODES = ("full", "lora")
BUSY = "while True: pass"


@dataclass(frozen=True)
class Contender:
    name: str
    script: str
    environment: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    checkout: Path = ROOT.parent
    """Whose engine runs."""
    rows_at_once: int | None = None
    """Of TRL, the rest by accumulation; None: the whole step, but of ranked lists."""

    @property
    def is_trl(self) -> bool:
        return self.script == "contender_trl.py"


@dataclass(frozen=True)
class Cell:
    """What all contenders of a line of the table do."""

    workload: str
    mode: str
    busy: int
    num_pairs: int
    batch_size: int

    @property
    def title(self) -> str:
        beside = f" beside {self.busy} busy" if self.busy else ""
        return f"{self.workload}/{self.mode}{beside}"


def contenders(earlier: Path | None) -> list[Contender]:
    return [
        Contender("trl-default", "contender_trl.py"),
        Contender("trl-best", "contender_trl.py", options=BEST),
        Contender("trl-malloc", "contender_trl.py", ALLOCATOR, BEST),
        Contender("trl-single", "contender_trl.py", ALLOCATOR, BEST, rows_at_once=1),
        *([Contender("earlier", "contender_engine.py", ALLOCATOR, checkout=earlier)] if earlier else []),
        Contender("preftune", "contender_engine.py", CPU_LIBRARIES),
    ]


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the checkout is removed on the way out
    precision = faster_precision("cpu") if arguments.precision == "auto" else arguments.precision
    report = open_report(arguments, precision)
    deadline = monotonic() + 60 * arguments.minutes
    with checked_out(arguments.earlier) as earlier:
        chosen = [contender for contender in contenders(earlier) if contender.name in arguments.only]
        found, rows_of = cells(arguments), cache(partial(load_rows, arguments=arguments))
        for number in range(1, arguments.rounds + 1):
            for cell in found:
                entry = open_entry(report, cell)
                for contender in chosen:
                    runs = entry["runs"].setdefault(contender.name, [])
                    if len(runs) >= number:
                        continue
                    if monotonic() > deadline:
                        sys.exit(f"{arguments.minutes:g} minutes are over; the same command goes on")
                    try:
                        runs.append(run(contender, cell, rows_of(cell), precision, arguments))
                    except subprocess.TimeoutExpired:
                        print(f"{cell.title}, {contender.name}: left out, over {arguments.cell_minutes:g} minutes")
                        continue
                    rate = runs[-1]["pairs"] / sum(runs[-1]["step_seconds"])
                    print(f"{cell.title}, round {number}, {contender.name}: {rate:.3f} pairs/s", flush=True)
                    save(report, arguments.out)
        for cell in found:
            print_table(cell.title, summarise(open_entry(report, cell), precision, arguments.threads))


def cells(arguments: argparse.Namespace) -> list[Cell]:
    found = []
    for workload in arguments.workloads:
        pairs, batch_size = STEPS.get(workload, (16, 8))
        pairs, batch_size = arguments.pairs or pairs, arguments.batch_size or batch_size
        if pairs % batch_size:
            sys.exit(f"{workload}: {pairs} pairs are not whole steps of {batch_size}")
        found += [Cell(workload, mode, busy, pairs, batch_size) for mode in arguments.modes for busy in arguments.busy]
    return found


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder of the base model")
    parser.add_argument("--trl-python", type=Path, help="python of an environment with benchmarks/requirements-trl.txt")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "examples" / "house-style.jsonl", help="pairs")
    parser.add_argument("--ranked", type=Path, help="file of ranked lists in any layout, for `ranked-files`")
    parser.add_argument("--workloads", nargs="+", choices=(*WORKLOADS, *SHARING), default=WORKLOADS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--busy", nargs="+", type=int, default=[0], help="busy processes beside; 0: none")
    parser.add_argument("--pairs", type=int, help="16; of ranked lists one step")
    parser.add_argument("--batch-size", type=int, help="pairs of a step: 8, or whole ranked lists")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=1, help="of each contender, those in --out counted")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="begin nothing later")
    parser.add_argument("--only", nargs="+", default=["trl-default", "trl-best", "trl-malloc", "preftune"])
    parser.add_argument("--cell-minutes", type=float, default=60, help="limit of a single run, which is left out then")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--earlier", help="commit, or checkout of one, for the contender `earlier`")
    parser.add_argument("--out", type=Path, help="the report as Markdown; its figures beside it as JSON are added to")
    arguments = parser.parse_args()
    if arguments.trl_python is None and not {*arguments.only} <= {"earlier", "preftune"}:
        parser.error("--trl-python is needed, or --only preftune")
    if arguments.earlier is None and "earlier" in arguments.only:
        parser.error("--earlier is needed")
    if arguments.ranked is None and "ranked-files" in arguments.workloads:
        parser.error("--ranked is needed")
    return arguments


@contextmanager
def checked_out(earlier: str | None) -> Iterator[Path | None]:
    """Yield a checkout of a commit, made for the time being; or the folder itself that is named instead."""
    if earlier is None or Path(earlier).is_dir():
        yield None if earlier is None else Path(earlier).resolve()
        return
    git = ["git", "-C", str(ROOT.parent), "worktree"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "earlier")
        subprocess.run([*git, "add", "--detach", str(folder), earlier], check=True, capture_output=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True, capture_output=True)


def load_rows(cell: Cell, arguments: argparse.Namespace) -> list[Pair]:
    if cell.workload in LENGTHS:
        return make_pairs(arguments.model, *LENGTHS[cell.workload], cell.num_pairs)
    if cell.workload in RANKED:
        texts = read_pairs(arguments.data, 2 * cell.num_pairs)
        return ranked_pairs(arguments.model, texts, RANKED[cell.workload], cell.num_pairs)
    if cell.workload == "ranked-files":
        return ranked_file(arguments.ranked, cell.num_pairs)
    rows = read_pairs(arguments.data, cell.num_pairs)
    return with_system_prompt(arguments.model, rows) if cell.workload == "system-300" else rows


def open_report(arguments: argparse.Namespace, precision: str) -> dict[str, Any]:
    fresh = {"machine": describe_machine(), "precision": precision, "threads": arguments.threads, "results": {}}
    path = arguments.out.with_suffix(".json") if arguments.out else None
    if path is None or not path.exists():
        return fresh
    report: dict[str, Any] = json.loads(path.read_text())
    if any(report[key] != fresh[key] for key in ("machine", "precision", "threads")):
        sys.exit(f"{path.name} was measured on another machine or with other settings; give another --out")
    return report


def open_entry(report: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """What was measured of a cell so far; rounds are added to it."""
    settings = {"pairs": cell.num_pairs, "batch_size": cell.batch_size}
    entry: dict[str, Any] = report["results"].setdefault(cell.title, settings | {"runs": {}})
    if any(entry[key] != value for key, value in settings.items()):
        sys.exit(f"{cell.title} was measured with other settings; give another --out")
    return entry


def save(report: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        write_markdown(report, out)


def run(
    contender: Contender, cell: Cell, rows: list[Pair], precision: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    batch_size, options = cell.batch_size, contender.options
    if contender.is_trl:
        at_once = contender.rows_at_once
        if cell.workload in STEPS:
            rows = rows[:: max(1, len(rows) // TRL_PAIRS)][:TRL_PAIRS]
            batch_size = len(rows)
            at_once = at_once or math.gcd(TRL_ROWS, batch_size)
        if at_once is not None:
            options |= {"per_device_train_batch_size": at_once, "gradient_accumulation_steps": batch_size // at_once}
        options |= {} if precision == "bf16" else {"bf16": False}
    python = str(arguments.trl_python) if contender.is_trl else sys.executable
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "model": str(arguments.model.resolve()),
            "rows": warm_up_pairs(batch_size) + rows,
            "batch_size": batch_size,
            "threads": arguments.threads,
            "lora": cell.mode == "lora",
            "precision": precision,
            "options": options,
            "scratch": scratch,
            "result": f"{scratch}/result.json",
        }
        settings_file = Path(scratch, "settings.json")
        settings_file.write_text(json.dumps(settings))
        environment = os.environ | {"HF_DATASETS_CACHE": scratch, "HF_HUB_OFFLINE": "1"} | contender.environment
        environment |= {"OMP_NUM_THREADS": str(arguments.threads)}
        environment |= {} if contender.is_trl else {"PYTHONPATH": str(contender.checkout.resolve())}
        for name in CPU_LIBRARIES.keys() - contender.environment.keys():
            environment.pop(name, None)
        with busy_processes(cell.busy):
            process = subprocess.run(
                [python, str(contender.checkout.resolve() / "benchmarks" / contender.script), str(settings_file)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60 * arguments.cell_minutes,
                check=False,
            )
        if process.returncode:
            sys.exit(f"{contender.name} failed:\n{process.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(Path(str(settings["result"])).read_text())
        return result | {"pairs": len(rows)}


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Keep so many processes busy, in this session."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def describe_machine() -> dict[str, Any]:
    """What a reader needs to judge the figures; no name of a host."""
    cpu, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        facts = {key.strip(): value.strip() for key, value in lines}
        cpu, flags = facts.get("model name", cpu), set(facts.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "flags": [flag for flag in wanted if flag in flags],
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
