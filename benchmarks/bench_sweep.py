"""What eight betas cost as a sweep, as a sweep by successive halving, and as separate jobs that share nothing.

    python benchmarks/bench_sweep.py --data pairs.jsonl [--base-model <folder>] [--pairs 40] [--seeds 0 1]

Starts the service (embedded, data in a temporary folder) and uploads the shortest pairs of the file. For each seed:
a sweep of all betas with strategy `all`, one with `successive_halving`, and the same betas as jobs with `reuse: false`.
All have SFT, reference, DPO, evaluation and publishing. Policies of `all` must equal those of separate jobs byte for
byte, or there is no result. The jobs of one kind are deleted before the next begins, so that nothing is taken over from
it. Costs are processor seconds of the whole service, which other work on the machine hardly disturbs. Beside them
stands the account of operations: tokens by stage, trained ones with their backward pass. What halving picks is compared
with the full grid's best by the paired difference in held-out preference loss. Linux only. Without a base model: a
Llama of random weights and the tokenizer of bytes, small enough for minutes on two cores.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from bench_train import describe_machine
from transformers import LlamaConfig, LlamaForCausalLM

from cli.demo import running_service
from core.domain.training.comparisons import paired_difference
from preftune import Client

ROOT = Path(__file__).resolve().parents[1]
BETAS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
STRATEGIES: dict[str, dict[str, Any]] = {"all": {}, "halving": {"strategy": "successive_halving"}}
SHARED = ("sft", "reference")
COST = {"full": 3, "lora": 2}
"""Forward passes that a trained token is worth: with LoRA no gradient of the frozen weights is computed."""
VOCABULARY = 512

Job = dict[str, Any]
Margins = dict[int, float]


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model_dir = arguments.base_model or make_base_model(work / "models" / "tiny")
        pairs = shortest_pairs(arguments, work / "pairs.jsonl")
        with running_service(work / "data", model_dir.resolve().parent) as url, Client(url) as client:
            dataset_id = client.datasets.upload(pairs)["id"]
            seeds: list[dict[str, Any]] = []
            for seed in arguments.seeds:
                job = {"base_model": model_dir.name, "dataset_id": dataset_id, "seed": seed, **arguments.settings}
                seeds.append(run_seed(client, job, arguments.betas) | {"seed": seed})
                report = describe(model_dir.name, arguments, seeds)
                if arguments.out:
                    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="preference pairs: prompt, chosen, rejected")
    parser.add_argument("--base-model", type=Path, help="folder of a base model")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--settings", type=json.loads, default={}, help="further fields of POST /jobs, as JSON")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    return parser.parse_args()


def describe(base_model: str, arguments: argparse.Namespace, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report on the seeds so far."""
    totals = {kind: sum(found["processor_seconds"][kind] for found in seeds) for kind in (*STRATEGIES, "separate")}
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
        "over_separate": {kind: round(totals[kind] / totals["separate"], 3) for kind in STRATEGIES},
        "policies": "those of `all` equal those of separate jobs byte for byte",
        "seeds": list(seeds),
    }


def run_seed(client: Client, job: Job, betas: Sequence[float]) -> dict[str, Any]:
    """Run all three kinds with one seed."""
    seconds: dict[str, float] = {}
    picks: dict[str, tuple[float, Margins]] = {}
    weights: list[str] = []
    taken_over: dict[str, int] = {}
    rungs: list[float] = []
    for kind, fields in STRATEGIES.items():
        before = service_processor_seconds()
        sweep = client.sweeps.create(job=job, grid={"beta": list(betas)}, **fields)
        sweep = client.sweeps.wait(sweep["id"], poll_seconds=1.0)
        seconds[kind] = round(service_processor_seconds() - before, 2)
        jobs = [client.jobs.get(member["job_id"]) for member in sweep["members"]]
        best = next(item for item in jobs if item["id"] == sweep["best_job_id"])
        picks[kind] = best["spec"]["beta"], held_out_margins(client, best)
        taken_over[kind] = sum(stage["reused_from"] is not None for item in jobs for stage in item["stages"])
        if kind == "all":
            weights = [weights_of(client, item) for item in jobs]
        else:
            rungs = sweep["halving"]["rungs"]
        print(f"  {kind}: {seconds[kind]:.1f} s of processor time, best beta {picks[kind][0]}", flush=True)
        for item in jobs:
            client.jobs.delete(item["id"])
    account = run_separate(client, job, betas, weights, seconds)
    difference = paired_difference(picks["halving"][1], picks["all"][1])
    return {
        "processor_seconds": seconds,
        "account_of_operations": account,
        "stages_taken_over": taken_over,
        "rungs": rungs,
        "best_beta": {kind: beta for kind, (beta, _) in picks.items()},
        "held_out_loss_of_halving_minus_all": None if difference is None else asdict(difference.loss),
        "num_held_out_pairs": 0 if difference is None else difference.num_pairs,
    }


def run_separate(
    client: Client, job: Job, betas: Sequence[float], expected: Sequence[str], seconds: dict[str, float]
) -> dict[str, Any]:
    """Run the same jobs without anything shared; return the account. Exits when a policy differs."""
    seconds["separate"] = 0.0
    account: dict[str, Any] = {}
    for beta, weights in zip(betas, expected, strict=True):
        before = service_processor_seconds()
        submitted = client.jobs.submit(**job, beta=beta, reuse=False)
        found = client.jobs.wait(submitted["id"], poll_seconds=0.5)
        seconds["separate"] += service_processor_seconds() - before
        if found["status"] != "succeeded":
            sys.exit(f"beta {beta}: the job ended as {found['status']}: {found['error']}")
        if weights_of(client, found) != weights:
            sys.exit(f"beta {beta}: the policies differ")
        account = account or account_of(found, len(betas))
        client.jobs.delete(found["id"])
    seconds["separate"] = round(seconds["separate"], 2)
    print(f"  separate: {seconds['separate']:.1f} s of processor time", flush=True)
    return account


def account_of(job: Job, number: int) -> dict[str, Any]:
    """Return tokens by stage of one job, as forward passes, and what sharing leaves of so many jobs."""
    cost = COST["lora" if job["spec"].get("lora") else "full"]
    tokens = job["actual"]["tokens"]
    passes = {stage: num * (cost if stage in ("sft", "dpo") else 1) for stage, num in tokens.items()}
    shared, whole = sum(passes.get(stage, 0) for stage in SHARED), sum(passes.values())
    left = (shared + number * (whole - shared)) / (number * whole)
    return {"tokens": tokens, "forward_passes": passes, "all_over_separate": round(left, 3)}


def held_out_margins(client: Client, job: Job) -> Margins:
    pairs = client.jobs.all_pairs(job["id"], split="validation")
    return {pair["line"]: pair["margin_last"] for pair in pairs if pair["margin_last"] is not None}


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
