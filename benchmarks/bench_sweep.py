"""What eight betas cost one after another, when jobs share SFT policy and reference, against eight jobs that do not.

    python benchmarks/bench_sweep.py --data pairs.jsonl [--base-model <folder>] [--pairs 40] [--out result.json]

Starts the service (embedded, data in a temporary folder), uploads the shortest pairs of the file, and submits two jobs
for each beta: one that may take stages over (`reuse`, the default), one that may not. They run one after another, in
alternation. Each has SFT, reference, DPO, evaluation and publishing. Policies must be equal byte for byte, or there is
no result; then the jobs are deleted, to spare the disk. Costs are processor seconds of the whole service, which other
work on the machine hardly disturbs, and the seconds from a job's start to its end, which it does. Linux only. Without
--base-model: a Llama of random weights and the tokenizer of bytes, small enough for minutes on two cores.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
BETAS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
KINDS = {"shared": True, "separate": False}
STAGES = ("staging", "sft", "reference", "dpo", "evaluation", "publishing")
VOCABULARY = 512

Job = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model_dir = arguments.base_model or make_base_model(work / "models" / "tiny")
        with running_service(work / "data", model_dir.resolve().parent) as url, Client(url) as client:
            for jobs in sweep(client, model_dir.name, shortest_pairs(arguments, work / "pairs.jsonl"), arguments):
                report = describe(model_dir.name, arguments, jobs)
                if arguments.out:
                    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def describe(base_model: str, arguments: argparse.Namespace, jobs: Mapping[str, Sequence[Job]]) -> dict[str, Any]:
    """Of the betas so far."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "load_average": os.getloadavg(),
        "base_model": base_model,
        "num_pairs": arguments.pairs,
        "betas": [job["spec"]["beta"] for job in jobs["shared"]],
        "spec": jobs["shared"][0]["spec"],
        **summarise(jobs),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="preference pairs: prompt, chosen, rejected")
    parser.add_argument("--base-model", type=Path, help="folder of a base model")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    parser.add_argument("--settings", type=json.loads, default={}, help="further fields of POST /jobs, as JSON")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    return parser.parse_args()


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


def sweep(
    client: Client, base_model: str, pairs: Path, arguments: argparse.Namespace
) -> Iterator[dict[str, list[Job]]]:
    """The finished jobs of either kind, after each beta. Exits when reuse changes a byte."""
    dataset = client.datasets.upload(pairs)
    jobs: dict[str, list[Job]] = {kind: [] for kind in KINDS}
    for beta in arguments.betas:
        digests = set()
        for kind, reuse in KINDS.items():
            before = service_processor_seconds()
            submitted = client.jobs.submit(
                base_model=base_model, dataset_id=dataset["id"], beta=beta, reuse=reuse, **arguments.settings
            )
            job = client.jobs.wait(submitted["id"], poll_seconds=0.2)
            if job["status"] != "succeeded":
                sys.exit(f"beta {beta}, {kind}: the job ended as {job['status']}: {job['error']}")
            jobs[kind].append(job | {"processor_seconds": service_processor_seconds() - before})
            digests |= {file["sha256"] for file in weight_files(client, job)}
            print(f"  beta {beta}, {kind}: {jobs[kind][-1]['processor_seconds']:.1f} s of processor time", flush=True)
        if len(digests) != 1:
            sys.exit(f"beta {beta}: the policies differ")
        for job in {jobs[kind][-1]["id"] for kind in KINDS} - {jobs["shared"][0]["id"]}:  # the first built the stages
            client.jobs.delete(job)
        yield jobs


def weight_files(client: Client, job: Job) -> list[dict[str, Any]]:
    return [file for file in client.jobs.artifact(job["id"])["files"] if file["path"] == "model.safetensors"]


def seconds(item: Mapping[str, Any], first: str, last: str) -> float:
    return (datetime.fromisoformat(item[last]) - datetime.fromisoformat(item[first])).total_seconds()


def summarise(jobs: Mapping[str, Sequence[Job]]) -> dict[str, Any]:
    costs = {
        "processor_seconds": {kind: [job["processor_seconds"] for job in found] for kind, found in jobs.items()},
        "wall_seconds": {
            kind: [seconds(job, "started_at", "finished_at") for job in found] for kind, found in jobs.items()
        },
    }
    return {
        **{unit: describe_costs(runs) for unit, runs in costs.items()},
        "mean_seconds_of_stages": {kind: stage_means(found) for kind, found in jobs.items()},
        "reused": [stage["name"] for stage in jobs["shared"][-1]["stages"] if stage["reused_from"]],
        "policies": "equal byte for byte",
    }


def describe_costs(runs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    totals = {kind: sum(values) for kind, values in runs.items()}
    return {
        "runs": {kind: [round(value, 2) for value in values] for kind, values in runs.items()},
        "totals": {kind: round(total, 1) for kind, total in totals.items()},
        "shared_over_separate": round(totals["shared"] / totals["separate"], 3),
    }


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


def stage_means(jobs: Sequence[Job]) -> dict[str, float]:
    """Over all jobs; a stage that was taken over counts as it stands in the job."""
    totals = dict.fromkeys(STAGES, 0.0)
    for stage in (stage for job in jobs for stage in job["stages"]):
        if stage["started_at"] and stage["finished_at"]:
            totals[stage["name"]] += seconds(stage, "started_at", "finished_at")
    return {name: round(total / len(jobs), 2) for name, total in totals.items()}


if __name__ == "__main__":
    main()
