"""What eight betas cost one after another, when they share SFT policy and reference, against eight separate runs.

    python benchmarks/bench_sweep.py --data pairs.jsonl [--model <dir>] [--pairs 64] [--out result.json]

Both sweeps take the same runs through the engine (SFT of one epoch, reference, DPO of one epoch, artifact), in
alternation, beta by beta. The sharing sweep takes stage outputs over as jobs of the service do; the other never.
Final policies must be equal byte for byte, or there is no result. Costs are processor seconds of the process, which
other work on the machine hardly disturbs, and wall seconds, which it does. Without --model: a Llama of random weights
and the tokenizer of bytes, small enough for minutes on two cores.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
import transformers
from bench_train import read_pairs
from contender_engine import encode
from transformers import LlamaConfig, LlamaForCausalLM

from core.training import pipeline
from core.training.observer import CheckpointRef, MetricPoint, Sample, Stage, StageOutput, StopRequest
from core.training.plan import DpoPlan, ReusePlan, SftPlan, TrainingPlan

ROOT = Path(__file__).resolve().parents[1]
BETAS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
VOCABULARY = 512


class OutputsOnly:
    """Keeps what stages leave for later runs; deaf and mute otherwise."""

    def __init__(self) -> None:
        self.outputs: dict[Stage, Path] = {}
        self.reused: list[Stage] = []

    def stage_output(self, output: StageOutput) -> None:
        self.outputs[output.stage] = output.directory

    def stage_skipped(self, stage: Stage, reason: str) -> None:
        self.reused += [stage] if reason == "reused" else []

    def stop_requested(self) -> StopRequest:
        return "none"

    def stage_started(self, stage: Stage, total_steps: int, first_step: int) -> None: ...
    def stage_finished(self, stage: Stage) -> None: ...
    def progress(self, stage: Stage, step: int, total_steps: int, tokens_per_second: float | None) -> None: ...
    def point(self, point: MetricPoint) -> None: ...
    def event(self, level: str, kind: str, message: str, data: Mapping[str, Any]) -> None: ...
    def checkpoint(self, ref: CheckpointRef) -> None: ...
    def samples(self, step: int, samples: Sequence[Sample]) -> None: ...


def main() -> None:
    arguments = parse_arguments()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        plan, description = make_plan(arguments, Path(folder))
        costs = sweep(plan)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "load_average": os.getloadavg(),
        "model": description,
        "num_pairs": arguments.pairs,
        "betas": BETAS,
        **summarise(costs),
    }
    print(json.dumps(report, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="preference pairs, or transcripts as of hh-rlhf")
    parser.add_argument("--model", type=Path, help="folder of a base model")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="fp32")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    return parser.parse_args()


def make_plan(arguments: argparse.Namespace, folder: Path) -> tuple[TrainingPlan, str]:
    rows = read_pairs(arguments.data, arguments.pairs)
    base, description = arguments.model, str(arguments.model and arguments.model.name)
    if base is None:
        base = folder / "base"
        description = make_base_model(base)
    encode(rows, str(base), folder / "rows")
    return TrainingPlan(
        base_model_dir=str(base),
        base_model_digest=description,
        train_data=str(folder / "rows"),
        sft=SftPlan(epochs=1, learning_rate=1e-4, batch_size=8, schedule="cosine"),
        dpo=DpoPlan(epochs=1, learning_rate=5e-6, batch_size=8, schedule="linear"),
        precision=arguments.precision,
        num_threads=arguments.threads,
        checkpoint_every_steps=1_000_000,
        work_dir=str(folder / "work"),
    ), description


def make_base_model(directory: Path) -> str:
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_models import write_tiny_tokenizer  # noqa: PLC0415 - only without a model of one's own

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=8192, tie_word_embeddings=True, eos_token_id=2, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    write_tiny_tokenizer(directory)
    return f"Llama of random weights, {model.num_parameters() / 1e6:.1f} M parameters, byte-level tokens"


def sweep(plan: TrainingPlan) -> dict[str, list[tuple[float, float]]]:
    """(processor, wall) seconds of every run. Exits when reuse changes a byte."""
    costs: dict[str, list[tuple[float, float]]] = {"shared": [], "separate": []}
    reuse = ReusePlan()
    for beta in BETAS:
        digests = {}
        for kind in costs:
            observer = OutputsOnly()
            work_dir = f"{plan.work_dir}-{kind}-{beta}"
            run_plan = dataclasses.replace(
                plan, beta=beta, work_dir=work_dir, reuse=reuse if kind == "shared" else ReusePlan()
            )
            started = process_time(), perf_counter()
            result = pipeline.run(run_plan, observer)
            costs[kind].append((process_time() - started[0], perf_counter() - started[1]))
            digests[kind] = hashlib.sha256((result.policy_dir / "model.safetensors").read_bytes()).hexdigest()
            if kind == "shared" and observer.outputs:
                reuse = ReusePlan(
                    sft_dir=str(observer.outputs[Stage.SFT]), reference_dir=str(observer.outputs[Stage.REFERENCE])
                )
        if len(set(digests.values())) != 1:
            sys.exit(f"beta {beta}: the policies differ")
        print(f"  beta {beta}: " + ", ".join(f"{kind} {runs[-1][0]:.1f} s" for kind, runs in costs.items()), flush=True)
    return costs


def summarise(costs: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for position, unit in enumerate(("processor_seconds", "wall_seconds")):
        totals = {kind: sum(run[position] for run in runs) for kind, runs in costs.items()}
        found[unit] = {
            "runs": {kind: [round(run[position], 2) for run in runs] for kind, runs in costs.items()},
            "totals": {kind: round(total, 1) for kind, total in totals.items()},
            "shared_over_separate": round(totals["shared"] / totals["separate"], 3),
        }
    return found | {"policies": "equal byte for byte"}


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
