"""DPO side by side: this engine and TRL's DPOTrainer, on the same pairs, in the same run, on this machine's CPU.

    make bench-train            every workload, full fine-tuning and LoRA; about an hour on two cores
    make bench-train QUICK=1    HH pairs, full fine-tuning, one step; a few minutes

Every contender runs in a process of its own, one after another, round by round, so that a machine that slows down
slows all of them. One step on tiny pairs warms up; then `--pairs` pairs in steps of `--batch-size`. A reference pass
made beforehand is timed apart ("with reference" counts it in: one epoch from nothing). Contenders:

    trl-default   TRL as it comes: gradient checkpointing, reference beside the policy, padded to the longest
    trl-best      gradient checkpointing off, reference computed beforehand
    trl-malloc    the same with the allocator settings this project starts its trainer with
    trl-single    the same, one pair at a time with accumulation, so that little is padded (only with --only)
    earlier       this engine as it was in the checkout that --earlier names
    preftune      this engine, with these allocator settings

Workloads beside `hh` and exact lengths: `ranked-4` and `ranked-7`, ranked lists of 4 and 7 answers (steps of whole
prompts: --batch-size 60 and 63), and `system-300`, the same system prompt of 300 tokens before every pair.

TRL computes in bf16 by default; on a CPU that multiplies bf16 slower than float32, all contenders are given float32.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train_report import print_table, summarise, write_markdown
from workloads import LENGTHS, RANKED, Pair, make_pairs, ranked_pairs, read_pairs, warm_up_pairs, with_system_prompt

from core.training.model.precision import faster_precision
from worker.child_environment import CPU_LIBRARIES

ROOT = Path(__file__).resolve().parent
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**34), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
BEST = {"gradient_checkpointing": False, "precompute_ref_log_probs": True}
TIMEOUT_SECONDS = 3600
WORKLOADS = ("hh", *LENGTHS)
SHARING = (*RANKED, "system-300")
"""Only when they are named."""
MODES = ("full", "lora")


@dataclass(frozen=True)
class Contender:
    name: str
    script: str
    environment: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    checkout: Path = ROOT.parent
    """Whose engine runs."""


def contenders(batch_size: int, earlier: Path | None) -> list[Contender]:
    single = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch_size}
    return [
        Contender("trl-default", "contender_trl.py"),
        Contender("trl-best", "contender_trl.py", options=BEST),
        Contender("trl-malloc", "contender_trl.py", ALLOCATOR, BEST),
        Contender("trl-single", "contender_trl.py", ALLOCATOR, BEST | single),
        *([Contender("earlier", "contender_engine.py", ALLOCATOR, checkout=earlier)] if earlier else []),
        Contender("preftune", "contender_engine.py", CPU_LIBRARIES),
    ]


def main() -> None:
    arguments = parse_arguments()
    precision = faster_precision("cpu") if arguments.precision == "auto" else arguments.precision
    report = open_report(arguments, precision)
    chosen = [c for c in contenders(arguments.batch_size, arguments.earlier) if c.name in arguments.only]
    for workload in arguments.workloads:
        rows = load_rows(workload, arguments)
        for mode in arguments.modes:
            print(
                f"\n{workload}, {mode}: {arguments.pairs} pairs, {arguments.batch_size} a step, {precision}", flush=True
            )
            entry = open_entry(report, f"{workload}/{mode}", arguments)
            for round_number in range(arguments.rounds):
                for contender in chosen:
                    result = run(contender, mode, precision, rows, arguments)
                    entry["runs"].setdefault(contender.name, []).append(result)
                    rate = arguments.pairs / sum(result["step_seconds"])
                    print(f"  round {round_number + 1} {contender.name}: {rate:.3f} pairs/s", flush=True)
                    save(report, arguments.out)
            print_table(f"{workload} {mode}", summarise(entry, precision))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder of the base model")
    parser.add_argument("--trl-python", type=Path, help="python of an environment with benchmarks/requirements-trl.txt")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "examples" / "house-style.jsonl", help="for `hh`")
    parser.add_argument("--workloads", nargs="+", choices=(*WORKLOADS, *SHARING), default=WORKLOADS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=["trl-default", "trl-best", "trl-malloc", "preftune"])
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier commit, for the contender `earlier`")
    parser.add_argument("--out", type=Path, help="the report as Markdown; its figures beside it as JSON are added to")
    arguments = parser.parse_args()
    if arguments.trl_python is None and not {*arguments.only} <= {"earlier", "preftune"}:
        parser.error("--trl-python is needed, or --only preftune")
    if arguments.earlier is None and "earlier" in arguments.only:
        parser.error("--earlier is needed")
    if arguments.pairs % arguments.batch_size:
        parser.error("--pairs must be whole steps of --batch-size")
    return arguments


def load_rows(workload: str, arguments: argparse.Namespace) -> list[Pair]:
    if workload in LENGTHS:
        rows = make_pairs(arguments.model, *LENGTHS[workload], arguments.pairs)
    elif workload in RANKED:
        texts = read_pairs(arguments.data, 2 * arguments.pairs)
        rows = ranked_pairs(arguments.model, texts, RANKED[workload], arguments.pairs)
    else:
        rows = read_pairs(arguments.data, arguments.pairs)
    if workload == "system-300":
        rows = with_system_prompt(arguments.model, rows)
    return warm_up_pairs(arguments.batch_size) + rows


def open_report(arguments: argparse.Namespace, precision: str) -> dict[str, Any]:
    fresh = {"machine": describe_machine(), "precision": precision, "threads": arguments.threads, "results": {}}
    path = arguments.out.with_suffix(".json") if arguments.out else None
    if path is None or not path.exists():
        return fresh
    report: dict[str, Any] = json.loads(path.read_text())
    if any(report[key] != fresh[key] for key in ("machine", "precision", "threads")):
        sys.exit(f"{path.name} was measured on another machine or with other settings; give another --out")
    return report


def open_entry(report: dict[str, Any], title: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What was measured of a workload so far; rounds are added to it."""
    settings = {"pairs": arguments.pairs, "batch_size": arguments.batch_size}
    entry: dict[str, Any] = report["results"].setdefault(title, settings | {"runs": {}})
    if any(entry[key] != value for key, value in settings.items()):
        sys.exit(f"{title} was measured with other settings; give another --out")
    return entry


def save(report: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        write_markdown(report, out)


def run(
    contender: Contender, mode: str, precision: str, rows: list[Pair], arguments: argparse.Namespace
) -> dict[str, Any]:
    is_trl = contender.script == "contender_trl.py"
    python = str(arguments.trl_python) if is_trl else sys.executable
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "model": str(arguments.model.resolve()),
            "rows": rows,
            "batch_size": arguments.batch_size,
            "threads": arguments.threads,
            "lora": mode == "lora",
            "precision": precision,
            "options": contender.options | ({} if precision == "bf16" else {"bf16": False}),
            "scratch": scratch,
            "result": f"{scratch}/result.json",
        }
        settings_file = Path(scratch, "settings.json")
        settings_file.write_text(json.dumps(settings))
        environment = os.environ | {"HF_DATASETS_CACHE": scratch, "HF_HUB_OFFLINE": "1"} | contender.environment
        environment |= {"OMP_NUM_THREADS": str(arguments.threads)}
        environment |= {} if is_trl else {"PYTHONPATH": str(contender.checkout.resolve())}
        for name in CPU_LIBRARIES.keys() - contender.environment.keys():
            environment.pop(name, None)
        process = subprocess.run(
            [python, str(contender.checkout.resolve() / "benchmarks" / contender.script), str(settings_file)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if process.returncode:
            sys.exit(f"{contender.name} failed:\n{process.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(Path(str(settings["result"])).read_text())
        return result


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
