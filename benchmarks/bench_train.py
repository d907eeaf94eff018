"""DPO side by side: this engine and TRL's DPOTrainer, on the same pairs, in the same run, on this machine's CPU.

    python benchmarks/bench_train.py --model <dir> --trl-python <venv>/bin/python [--data pairs.jsonl]

Every contender runs in a process of its own, one after another, round by round, so that a machine that slows down
slows all of them. One step of warm-up, then `--pairs` pairs in steps of `--batch-size`; a reference pass made
beforehand is timed apart ("with reference" counts it in: one epoch from nothing). Contenders:

    trl-default   TRL as it comes: gradient checkpointing, reference beside the policy, padded to the longest
    trl-best      gradient checkpointing off, reference computed beforehand
    trl-malloc    the same with the allocator settings this project starts its trainer with
    trl-single    the same, one pair at a time with accumulation, so that little is padded
    preftune      this engine, with these allocator settings

TRL computes in bf16 by default; on a CPU that multiplies bf16 slower than float32, all contenders are given float32.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.training.precision import faster_precision

ROOT = Path(__file__).resolve().parent
TURN = "\n\nAssistant:"
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**34), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
BEST = {"gradient_checkpointing": False, "precompute_ref_log_probs": True}
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Contender:
    name: str
    script: str
    environment: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def contenders(batch_size: int) -> list[Contender]:
    single = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch_size}
    return [
        Contender("trl-default", "contender_trl.py"),
        Contender("trl-best", "contender_trl.py", options=BEST),
        Contender("trl-malloc", "contender_trl.py", ALLOCATOR, BEST),
        Contender("trl-single", "contender_trl.py", ALLOCATOR, BEST | single),
        Contender("preftune", "contender_engine.py", ALLOCATOR),
    ]


def main() -> None:
    arguments = parse_arguments()
    rows = read_pairs(arguments.data, arguments.pairs + arguments.batch_size)
    precision = faster_precision("cpu") if arguments.precision == "auto" else arguments.precision
    print(
        f"{arguments.pairs} pairs, {arguments.batch_size} a step, {arguments.threads} threads, {precision}", flush=True
    )
    report: dict[str, Any] = {"machine": describe_machine(), "precision": precision, "modes": {}}
    chosen = [c for c in contenders(arguments.batch_size) if not arguments.only or c.name in arguments.only]
    for mode in arguments.modes:
        results: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in chosen}
        for round_number in range(arguments.rounds):
            for contender in chosen:
                result = run(contender, mode, precision, rows, arguments)
                results[contender.name].append(result)
                rate = arguments.pairs / sum(result["step_seconds"])
                print(f"  {mode} round {round_number + 1} {contender.name}: {rate:.3f} pairs/s", flush=True)
        report["modes"][mode] = summarise(results, arguments.pairs, precision)
        print_table(mode, report["modes"][mode])
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder of the base model")
    parser.add_argument("--trl-python", type=Path, help="python of an environment with trl, datasets and peft")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "examples" / "preferences.jsonl")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--modes", nargs="+", default=["full", "lora"], choices=["full", "lora"])
    parser.add_argument("--only", nargs="+", help="contenders by name")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    arguments = parser.parse_args()
    if arguments.trl_python is None and arguments.only != ["preftune"]:
        parser.error("--trl-python is needed, or --only preftune")
    return arguments


def read_pairs(path: Path, count: int) -> list[dict[str, str]]:
    """prompt, chosen, rejected; or transcripts in the style of hh-rlhf, whose prompt ends at the last turn."""
    rows = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "prompt" not in row:
                cut = row["chosen"].rfind(TURN) + len(TURN)
                row = {"prompt": row["chosen"][:cut], "chosen": row["chosen"][cut:], "rejected": row["rejected"][cut:]}
            if not all(isinstance(row[key], str) for key in ("prompt", "chosen", "rejected")):
                sys.exit(f"{path.name}: this benchmark takes plain text, not messages")
            rows.append({key: row[key] for key in ("prompt", "chosen", "rejected")})
            if len(rows) == count:
                return rows
    sys.exit(f"{path.name} has {len(rows)} pairs, {count} are needed (--pairs plus one step of warm-up)")


def run(
    contender: Contender, mode: str, precision: str, rows: list[dict[str, str]], arguments: argparse.Namespace
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
        environment = os.environ | {"HF_DATASETS_CACHE": scratch, "HF_HUB_OFFLINE": "1"} | contender.environment
        environment |= {"OMP_NUM_THREADS": str(arguments.threads)}
        environment |= {} if is_trl else {"PYTHONPATH": str(ROOT.parent)}
        for name in ALLOCATOR.keys() - contender.environment.keys():
            environment.pop(name, None)
        process = subprocess.run(
            [python, str(ROOT / contender.script), json.dumps(settings)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if process.returncode:
            sys.exit(f"{contender.name} failed:\n{process.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(Path(settings["result"]).read_text())
        return result


def summarise(results: dict[str, list[dict[str, Any]]], num_pairs: int, precision: str) -> dict[str, Any]:
    tokens = next((r[0]["tokens"] for r in results.values() if "tokens" in r[0]), None)
    summary = {}
    for name, rounds in results.items():
        seconds = [sum(result["step_seconds"]) for result in rounds]
        rates = sorted(num_pairs / s for s in seconds)
        rate = statistics.median(rates)
        with_reference = [num_pairs / (s + r["reference_seconds"]) for s, r in zip(seconds, rounds, strict=True)]
        entry = {
            "pairs_per_second": rate,
            "pairs_per_second_range": [rates[0], rates[-1]],
            "pairs_per_second_with_reference": statistics.median(with_reference),
            "peak_rss_bytes": max(result["peak_rss_bytes"] for result in rounds),
            "losses": rounds[0]["losses"],
            "versions": rounds[0]["versions"],
        }
        if tokens is not None:
            entry["tokens_per_second"] = rate * tokens / num_pairs
        if "flops" in rounds[0]:
            peaks = [result["gemm_flops"][precision] for result in rounds]
            entry["gemm_flops"] = {key: max(r["gemm_flops"][key] for r in rounds) for key in ("bf16", "fp32")}
            entry["share_of_gemm_peak"] = statistics.median(
                r["flops"] / s / peak for r, s, peak in zip(rounds, seconds, peaks, strict=True)
            )
        summary[name] = entry
    if "preftune" in summary:
        ours = summary["preftune"]["pairs_per_second"]
        for entry in summary.values():
            entry["preftune_is_times_faster"] = ours / entry["pairs_per_second"]
    return summary


def print_table(mode: str, summary: dict[str, Any]) -> None:
    print(f"\n{mode:<14}{'pairs/s':>9}{'with reference':>16}{'tokens/s':>10}{'peak GB':>9}{'preftune is':>13}")
    for name, entry in summary.items():
        tokens = f"{entry['tokens_per_second']:.0f}" if "tokens_per_second" in entry else "-"
        times = f"{entry['preftune_is_times_faster']:.2f}x" if "preftune_is_times_faster" in entry else "-"
        print(
            f"{name:<14}{entry['pairs_per_second']:>9.3f}{entry['pairs_per_second_with_reference']:>16.3f}"
            f"{tokens:>10}{entry['peak_rss_bytes'] / 1e9:>9.2f}{times:>13}"
        )
    if "preftune" in summary:
        entry = summary["preftune"]
        peaks = ", ".join(f"{key} {value / 1e9:.0f} GFLOP/s" for key, value in entry["gemm_flops"].items())
        print(f"preftune reaches {entry['share_of_gemm_peak']:.0%} of this CPU's matrix product speed ({peaks})\n")


def describe_machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu
        )
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}


if __name__ == "__main__":
    main()
