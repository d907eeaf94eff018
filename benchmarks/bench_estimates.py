"""Estimates beside what happened: twenty jobs of varied length and size, each previewed before it runs.

    python benchmarks/bench_estimates.py [--base-model <folder>] [--jobs 20] [--out result.json]

Starts the service (embedded, data in a temporary folder) with two Llamas of random weights and, if given, a base model
of your own. First run two or three jobs of each kind, which are measured only; then the twenty, in a mixed order.
Prints a line for each, and exits with 1 unless the time of at least 16 of 20 lay within the interval (upper bound at
most twice the lower one) and the peak memory of all within 15 %. Ten minutes on two quiet cores.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from bench_train import describe_machine
from transformers import LlamaConfig, LlamaForCausalLM

from cli.demo import running_service
from preftune import Client

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "house-style.jsonl"
MIN_IN_INTERVAL = 0.8
MAX_MEMORY_ERROR = 0.15
MIB = 2**20
VOCABULARY = 512
SIZES = {
    "small": {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4},
    "larger": {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 5},
}


@dataclass(frozen=True)
class Planned:
    """One job: pairs of so many rows, each response of so many answers of the examples joined."""

    model: str
    pairs: int
    answers: int
    settings: dict[str, Any] = field(default_factory=dict)


LORA = {"lora": {"rank": 8}}
FIRST = [
    Planned("small", 24, 1),
    Planned("small", 60, 2),
    Planned("small", 30, 1, LORA),
    Planned("larger", 24, 1),
    Planned("larger", 40, 2),
]
THEN = [
    Planned("small", 16, 1),
    Planned("small", 120, 1),
    Planned("small", 40, 3),
    Planned("small", 80, 1, {"dpo": {"epochs": 2}}),
    Planned("small", 50, 2, {"sft": "skip"}),
    Planned("small", 64, 1, {"sft": {"batch_size": 16}, "dpo": {"batch_size": 16}}),
    Planned("small", 30, 2, {"variant": "simpo"}),
    Planned("small", 40, 1, {"validation_fraction": 0.3}),
    Planned("small", 30, 4, LORA),
    Planned("small", 90, 1, LORA),
    Planned("small", 20, 1, LORA),
    Planned("larger", 16, 1),
    Planned("larger", 48, 1),
    Planned("larger", 24, 3),
    Planned("larger", 30, 1, {"sft": {"epochs": 2}}),
    Planned("larger", 30, 2, {"sft": "skip"}),
]
WITHOUT = [
    Planned("larger", 20, 2),
    Planned("larger", 60, 1),
    Planned("small", 150, 1),
    Planned("small", 30, 1, {"evaluate_every_steps": 2}),
]
"""The last four without a base model of one's own."""
OWN_FIRST = [Planned("own", 10, 1, LORA), Planned("own", 20, 1, LORA), Planned("own", 10, 1), Planned("own", 16, 3)]
OWN = [
    Planned("own", 32, 1, LORA),
    Planned("own", 14, 3, LORA),
    Planned("own", 16, 1, LORA | {"sft": "skip"}),
    Planned("own", 16, 2),
]
"""The last four with one."""


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, size in SIZES.items():
            make_base_model(work / "models" / name, size)
        if arguments.base_model:
            shutil.copytree(arguments.base_model, work / "models" / "own", copy_function=link_or_copy)
        first = FIRST + (OWN_FIRST if arguments.base_model else [])
        then = THEN + (OWN if arguments.base_model else WITHOUT)
        random.Random(0).shuffle(then)
        with running_service(work / "data", work / "models") as url, Client(url) as client:
            for number, planned in enumerate(first):
                done = run(client, planned, work, number)
                print(f"measured  {describe(planned):44} {done['actual']['seconds']:6.1f} s", flush=True)
            print(HEADING, flush=True)
            rows = []
            for number, planned in enumerate(then[: arguments.jobs], len(first)):
                rows.append(compare(planned, run(client, planned, work, number)))
                print(rows[-1]["line"], flush=True)
    report(arguments, rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path, help="folder of a base model of your own")
    parser.add_argument("--jobs", type=int, default=20, help="run so many of the estimated jobs")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    return parser.parse_args()


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def make_base_model(directory: Path, size: dict[str, int]) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from tiny_models import write_tiny_tokenizer  # noqa: PLC0415 - the tests' tokenizer of bytes

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=8192, tie_word_embeddings=True, eos_token_id=2, pad_token_id=0,
        bos_token_id=None, **size,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    write_tiny_tokenizer(directory)


def write_pairs(path: Path, planned: Planned, seed: int) -> Path:
    """Pairs with prompts of their own, whose responses are answers of the examples, up to twice as many."""
    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(seed)
    lines = []
    for number in range(planned.pairs):
        count = rng.randint(planned.answers, 2 * planned.answers)
        chosen, rejected = (
            " ".join(text_of(rng.choice(rows)[side]) for _ in range(count)) for side in ("chosen", "rejected")
        )
        prompt = f"Question {seed}-{number}: how do I do it well?"
        lines.append(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else str(value[-1]["content"])


def run(client: Client, planned: Planned, work: Path, number: int) -> dict[str, Any]:
    """Preview a job, run it, and return it with the preview's estimate."""
    dataset = client.datasets.upload(write_pairs(work / "pairs.jsonl", planned, number))
    asked = {"base_model": planned.model, "dataset_id": dataset["id"], "max_length": 2048, **planned.settings}
    estimate = client.jobs.preview(**asked)["estimate"]
    job = client.jobs.wait(client.jobs.submit(**asked)["id"], poll_seconds=0.2)
    if job["status"] != "succeeded":
        sys.exit(f"{describe(planned)}: the job ended as {job['status']}: {job['error']}")
    client.jobs.delete(job["id"])
    return job | {"previewed": estimate}


def describe(planned: Planned) -> str:
    settings = " ".join(f"{name}={json.dumps(value)}" for name, value in planned.settings.items())
    return f"{planned.model} {planned.pairs} pairs x{planned.answers} {settings}"


HEADING = (
    f"\n{'job':44} {'estimate':>15} {'took':>8}        {'memory':>8} {'took':>8} {'error':>7}   {'tokens':>7} "
    f"{'took':>7}"
)


def compare(planned: Planned, job: dict[str, Any]) -> dict[str, Any]:
    estimate, actual = job["previewed"], job["actual"]
    if estimate["seconds"] is None:
        sys.exit(f"{describe(planned)}: no estimate: {estimate['reason']}")
    low, high, took = estimate["seconds"]["low"], estimate["seconds"]["high"], actual["seconds"]
    expected, peak = estimate["peak_memory_bytes"], actual["peak_memory_bytes"]
    error = expected / peak - 1
    is_in = low <= took <= high
    tokens, computed = sum(estimate["tokens"].values()), sum(actual["tokens"].values())
    line = (
        f"{describe(planned)[:44]:44} {low:6.1f} – {high:5.1f} s {took:6.1f} s {'' if is_in else 'OUT':4} "
        f"{expected / MIB:6.0f} M {peak / MIB:6.0f} M {error:+7.1%}   {tokens:7} {computed:7}"
    )
    return {
        "job": asdict(planned), "low": low, "high": high, "seconds": took, "is_in": is_in, "line": line,
        "expected_peak_bytes": expected, "peak_bytes": peak, "memory_error": error,
        "stage_seconds": estimate["workers"][0]["stage_seconds"], "expected_tokens": tokens, "tokens": computed,
    }  # fmt: skip


def report(arguments: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    num_in = sum(row["is_in"] for row in rows)
    worst = max(abs(row["memory_error"]) for row in rows)
    widest = max(row["high"] / row["low"] for row in rows)
    verdict = {
        "in_interval": num_in, "of": len(rows), "widest_interval": round(widest, 3),
        "worst_memory_error": round(worst, 4),
    }  # fmt: skip
    found = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "verdict": verdict,
        "jobs": [{name: value for name, value in row.items() if name != "line"} for row in rows],
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{num_in} of {len(rows)} within the interval, the widest {widest:.2f} x; memory within {worst:.1%}")
    if num_in < MIN_IN_INTERVAL * len(rows) or worst > MAX_MEMORY_ERROR:
        sys.exit(1)


if __name__ == "__main__":
    main()
