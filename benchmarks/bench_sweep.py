"""What eight betas cost as a sweep, as a sweep by successive halving, and as separate jobs that share nothing.

    python benchmarks/bench_sweep.py --data pairs.jsonl [--base-model <folder>] [--pairs 40] [--seeds 0 1]

Starts the service (embedded, data in a temporary folder) and uploads the shortest pairs of the file. For each seed:
a sweep of all betas with `successive_halving`, one with `all`, and the same betas as jobs with `reuse: false`.
All have SFT, reference, DPO, evaluation and publishing. Policies of `all` must equal those of separate jobs byte for
byte, or there is no result. The jobs of one kind are deleted before the next begins, so that nothing is taken over from
it. Costs are processor seconds of the whole service, which other work on the machine hardly disturbs. Beside them
stands the account of operations: tokens by stage, trained ones with their backward pass. What halving picks is compared
with the full grid's best by the paired difference in held-out preference loss. Linux only. Without a base model: a
Llama of random weights and the tokenizer of bytes, small enough for minutes on two cores.

With `--parts FOLDER` each sweep and each separate job writes what it took there; started again with the same arguments,
it goes on behind the last one. `--max-minutes` begins no further part after that time. The report is written after each
part: while separate jobs are missing, it takes the mean of those that were run for the others (`num_separate_jobs`).
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from bench_train import describe_machine
from parts import Parts, TimeIsOver, end_cleanly
from transformers import LlamaConfig, LlamaForCausalLM

from cli.demo import running_service
from core.domain.halving import plan_rungs, work_share
from core.domain.sweeps import Halving
from core.domain.training.comparisons import PairKey, paired_difference
from preftune import Client

ROOT = Path(__file__).resolve().parents[1]
BETAS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
STRATEGIES: dict[str, dict[str, Any]] = {"all": {}, "halving": {"strategy": "successive_halving"}}
SHARED = ("sft", "reference")
COST = {"full": 3, "lora": 2}
"""Forward passes that a trained token is worth: with LoRA no gradient of the frozen weights is computed."""
VOCABULARY = 512

Job = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    end_cleanly()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model_dir = arguments.base_model or make_base_model(work / "models" / "tiny")
        pairs = shortest_pairs(arguments, work / "pairs.jsonl")
        parts = Parts(arguments.parts or work / "parts", arguments.max_minutes)
        parts.claim(describe_work(model_dir, arguments, pairs))
        with running_service(work / "data", model_dir.resolve().parent) as url, Client(url) as client:
            dataset_id = client.datasets.upload(pairs)["id"]
            try:
                for seed in arguments.seeds:
                    job = {"base_model": model_dir.name, "dataset_id": dataset_id, "seed": seed, **arguments.settings}
                    for name, run in parts_of(client, job, arguments.betas).items():
                        parts.take(name, run)
                        write_report(model_dir.name, arguments, parts)
            except TimeIsOver as over:
                print(over)
    print(json.dumps(write_report(model_dir.name, arguments, parts), indent=1))


def write_report(base_model: str, arguments: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """Write and return the report on what is done."""
    is_lora = "lora" in arguments.settings
    kinds = [*STRATEGIES, *(f"separate-{beta:g}" for beta in arguments.betas)]
    names = [f"seed-{seed}-{kind}" for seed in arguments.seeds for kind in kinds]
    missing = [name for name in names if parts.find(name) is None]
    seeds = [describe_seed(parts, seed, arguments.betas, is_lora=is_lora) for seed in arguments.seeds]
    report = describe(base_model, arguments, seeds, missing)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def describe_work(model_dir: Path, arguments: argparse.Namespace, pairs: Path) -> dict[str, Any]:
    """Return what parts of one run have in common."""
    return {
        "base_model": model_dir.name,
        "pairs_sha256": hashlib.sha256(pairs.read_bytes()).hexdigest(),
        "betas": list(arguments.betas),
        "settings": arguments.settings,
        "preftune": version("preftune-service"),
        "torch": torch.__version__,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="preference pairs: prompt, chosen, rejected")
    parser.add_argument("--base-model", type=Path, help="folder of a base model")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--settings", type=json.loads, default={}, help="further fields of POST /jobs, as JSON")
    parser.add_argument("--parts", type=Path, help="folder of parts that are done, to go on later")
    parser.add_argument("--max-minutes", type=float, help="begin no further part after so many minutes")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    return parser.parse_args()


def describe(
    base_model: str, arguments: argparse.Namespace, seeds: Sequence[Mapping[str, Any]], missing: Sequence[str]
) -> dict[str, Any]:
    """Return the report on the seeds so far."""
    kinds = (*STRATEGIES, "separate")
    whole = [found["processor_seconds"] for found in seeds if found["processor_seconds"].keys() >= set(kinds)]
    totals = {kind: sum(seconds[kind] for seconds in whole) for kind in kinds} if whole else {}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "load_average": os.getloadavg(),
        "base_model": base_model,
        "num_pairs": arguments.pairs,
        "betas": list(arguments.betas),
        "settings": arguments.settings,
        "processor_seconds": {kind: round(total, 1) for kind, total in totals.items()},
        "over_separate": {kind: round(totals[kind] / totals["separate"], 3) for kind in STRATEGIES} if totals else {},
        "policies": "those of `all` equal those of separate jobs byte for byte, of those betas that were run both ways",
        "parts_not_run": list(missing),
        "seeds": list(seeds),
    }


def parts_of(client: Client, job: Job, betas: Sequence[float]) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is run with one seed, by its name: the sweeps first."""
    seed = job["seed"]
    sweeps = {
        f"seed-{seed}-{kind}": partial(run_sweep, client, job, betas, STRATEGIES[kind]) for kind in ("halving", "all")
    }
    return sweeps | {f"seed-{seed}-separate-{beta:g}": partial(run_separate, client, job, beta) for beta in betas}


def describe_seed(parts: Parts, seed: int, betas: Sequence[float], *, is_lora: bool) -> dict[str, Any]:
    """Return what is known of a seed. Exits when policies differ that should not.

    Where not all separate jobs were run yet, their processor time is that of those that were, times what is left.
    """
    sweeps = {kind: found for kind in STRATEGIES if (found := parts.find(f"seed-{seed}-{kind}")) is not None}
    alone = {beta: found for beta in betas if (found := parts.find(f"seed-{seed}-separate-{beta:g}")) is not None}
    for beta, weights in zip(betas, sweeps["all"]["weights"] if "all" in sweeps else (), strict=False):
        if beta in alone and alone[beta]["weights"] != weights:
            sys.exit(f"beta {beta}: the policies differ")
    seconds = {kind: part["processor_seconds"] for kind, part in sweeps.items()}
    if alone:
        mean = sum(part["processor_seconds"] for part in alone.values()) / len(alone)
        seconds["separate"] = round(mean * len(betas), 2)
    difference = None
    if len(sweeps) == len(STRATEGIES):
        difference = paired_difference(*(margins_of(sweeps[kind]["best_margins"]) for kind in ("halving", "all")))
    return {
        "seed": seed,
        "processor_seconds": seconds,
        "num_separate_jobs": len(alone),
        "account_of_operations": account_of(next(iter(alone.values()))["tokens"], len(betas), is_lora=is_lora)
        if alone
        else None,
        "stages_taken_over": {kind: part["stages_taken_over"] for kind, part in sweeps.items()},
        "rungs": sweeps["halving"]["rungs"] if "halving" in sweeps else [],
        "best_beta": {kind: part["best_beta"] for kind, part in sweeps.items()},
        "held_out_loss_of_halving_minus_all": None if difference is None else asdict(difference.loss),
        "num_held_out_pairs": 0 if difference is None else difference.num_pairs,
    }


def run_sweep(client: Client, job: Job, betas: Sequence[float], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Run a sweep to its end, and delete its jobs."""
    before = service_processor_seconds()
    sweep = client.sweeps.create(job=job, grid={"beta": list(betas)}, **fields)
    sweep = client.sweeps.wait(sweep["id"], poll_seconds=1.0)
    seconds = service_processor_seconds() - before
    jobs = [client.jobs.get(member["job_id"]) for member in sweep["members"]]
    best = next(item for item in jobs if item["id"] == sweep["best_job_id"])
    found = {
        "processor_seconds": round(seconds, 2),
        "best_beta": best["spec"]["beta"],
        "best_margins": held_out_margins(client, best),
        "stages_taken_over": sum(stage["reused_from"] is not None for item in jobs for stage in item["stages"]),
        "weights": [weights_of(client, item) for item in jobs if item["status"] == "succeeded"],
        "rungs": (sweep["halving"] or {}).get("rungs", []),
    }
    for item in jobs:
        client.jobs.delete(item["id"])
    return found


def run_separate(client: Client, job: Job, beta: float) -> dict[str, Any]:
    """Run a job that shares nothing, and delete it."""
    before = service_processor_seconds()
    submitted = client.jobs.submit(**job, beta=beta, reuse=False)
    found = client.jobs.wait(submitted["id"], poll_seconds=0.5)
    seconds = service_processor_seconds() - before
    if found["status"] != "succeeded":
        sys.exit(f"beta {beta}: the job ended as {found['status']}: {found['error']}")
    part = {
        "processor_seconds": round(seconds, 2),
        "weights": weights_of(client, found),
        "tokens": found["actual"]["tokens"],
    }
    client.jobs.delete(found["id"])
    return part


def account_of(tokens: Mapping[str, int], number: int, *, is_lora: bool) -> dict[str, Any]:
    """Return tokens by stage of one job, as forward passes, and what sharing and halving leave of so many jobs."""
    cost = COST["lora" if is_lora else "full"]
    passes = {stage: num * (cost if stage in ("sft", "dpo") else 1) for stage, num in tokens.items()}
    shared, whole = sum(passes.get(stage, 0) for stage in SHARED), sum(passes.values())
    halving = Halving()
    share = work_share(number, halving.eta, plan_rungs(number, halving.eta, halving.min_share))
    parts = {"all": 1.0, "halving": share}
    left = {kind: (shared + number * part * (whole - shared)) / (number * whole) for kind, part in parts.items()}
    return {"tokens": tokens, "forward_passes": passes} | {
        f"{kind}_over_separate": round(value, 3) for kind, value in left.items()
    }


def held_out_margins(client: Client, job: Job) -> list[tuple[int, float]]:
    """Return line and margin of the held-out pairs, in order."""
    pairs = client.jobs.all_pairs(job["id"], split="validation")
    return [(pair["line"], pair["margin_last"]) for pair in pairs if pair["margin_last"] is not None]


def margins_of(found: Sequence[Sequence[Any]]) -> dict[PairKey, float]:
    """Return margins by line and place in it, as comparisons have them."""
    num_of_line: Counter[int] = Counter()
    margins: dict[PairKey, float] = {}
    for line, margin in found:
        num_of_line[line] += 1
        margins[line, num_of_line[line]] = margin
    return margins


def weights_of(client: Client, job: Job) -> str:
    files = client.jobs.artifact(job["id"])["files"]
    return next(str(file["sha256"]) for file in files if file["path"] == "model.safetensors")


def shortest_pairs(arguments: argparse.Namespace, target: Path) -> Path:
    lines = arguments.data.read_text(encoding="utf-8").splitlines()
    if len(lines) < arguments.pairs:
        sys.exit(f"{arguments.data.name} has {len(lines)} pairs, {arguments.pairs} are needed")
    target.write_text("\n".join(sorted(lines, key=len)[: arguments.pairs]) + "\n", encoding="utf-8")
    return target


def make_base_model(directory: Path) -> Path:
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from tiny_models import write_tiny_tokenizer  # noqa: PLC0415 - only without a model of one's own

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=8192, tie_word_embeddings=True, eos_token_id=2, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    write_tiny_tokenizer(directory)
    return directory


def service_processor_seconds() -> float:
    """Of all processes that this one has started, and of those that they have seen end."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # ended meanwhile
            continue
        pid = int(path.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(int(field) for field in fields[11:15])
    family = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= found
    return sum(ticks[pid] for pid in family - {os.getpid()}) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
