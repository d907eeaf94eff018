"""Rounds beside a job on a fixed file, at equal training steps: win rates on held-out prompts by a rule.

    python benchmarks/bench_rounds.py --data pairs.jsonl --base-model <folder> [--folder data/bench-rounds]

The rule: an answer is exactly one sentence, which the base model hardly ever writes. The file's pairs are labelled by
the rule, and their chosen answers train an SFT policy. In rounds, it answers prompts of the file, the answers are
judged, and it trains on the best answer of a prompt against the worst: once the rule judges, once a reward model that
has learnt from the labels. Beside each, a job trains the same SFT policy on the labelled pairs, with the same settings,
in whole epochs for as many steps, or more. Then all policies and the base model answer the held-out prompts, which
nothing was trained on, and the rule compares each with each, the reward model its own rounds with the others; the
intervals are over prompts.

Everything is in the folder: started again with the same arguments, it goes on where it was. Linux only.
"""

import argparse
import json
import math
import os
import sys
from datetime import UTC, datetime
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
import transformers
from bench_train import describe_machine

from cli.demo import running_service
from preftune import Client

RULE = {"kind": "regex", "pattern": r"^\s*[^.!?\s][^.!?]*[.!?]+\s*$"}
"""Exactly one sentence: text, then its end, and nothing behind it."""
SFT = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-4}
JOB = {"lora": {"rank": 16}, "dpo": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-4}, "max_length": 512}


class State:
    """Ids of what was made, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def once(self, name: str, make: Any) -> str:
        if name not in self._ids:
            self._ids[name] = str(make()["id"])
            self._path.write_text(json.dumps(self._ids, indent=1) + "\n")
        return self._ids[name]


def main() -> None:
    arguments = parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    pairs = shortest_prompts(arguments.data, arguments.prompts, arguments.folder / "pairs.jsonl")
    state = State(arguments.folder / "ids.json")
    models_dir = arguments.base_model.resolve().parent
    with running_service(arguments.folder / "service", models_dir) as url, Client(url, timeout_seconds=300) as client:
        report = run(client, state, pairs, arguments)
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def run(client: Client, state: State, pairs: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    base, job = arguments.base_model.name, {**JOB, **arguments.settings}
    dataset_id = state.once("dataset", lambda: client.datasets.upload(pairs))
    shares = [arguments.held_out, 1 - arguments.held_out]
    train_part = state.once("train_part", lambda: client.datasets.split(dataset_id, shares, seed=0)[1])
    judged = state.once("labels", lambda: client.judgements.create(dataset_id=train_part, judge=RULE))
    labels = client.datasets.get(client.judgements.wait(judged)["dataset_id"])
    shared = {name: job[name] for name in job if name != "dpo"} | {"base_model": base, "dataset_id": labels["id"]}
    policy = state.once("sft", partial(client.jobs.submit, method="supervised", sft=SFT, **shared))
    reward_model = state.once("reward_model", partial(client.jobs.submit, method="reward", reward=job["dpo"], **shared))
    judges = {"rule": RULE, "reward model": {"kind": "reward", "job_id": reward_model}}
    learnt, _ = ended_job(client, reward_model), ended_job(client, policy)
    asked = {
        name: state.once(f"rounds, {name}", partial(ask, client, dataset_id, policy, judge, arguments))
        for name, judge in judges.items()
    }
    rounds = {name: ended_rounds(client, rounds_id) for name, rounds_id in asked.items()}
    policies = {name: [client.jobs.get(one["policy"]) for one in run["rounds"]] for name, run in rounds.items()}
    num_steps = {name: sum(steps_of(trained) for trained in jobs) for name, jobs in policies.items()}
    file_ids = {
        name: state.once(f"file, {name}", partial(submit_file_job, client, labels, policy, steps, job))
        for name, steps in num_steps.items()
    }
    steps_of_file = {f"file, {name}": steps_of(ended_job(client, file_id)) for name, file_id in file_ids.items()}
    models = {f"rounds, {name}": jobs[-1]["id"] for name, jobs in policies.items()}
    models |= {f"file, {name}": file_id for name, file_id in file_ids.items()} | {"sft": policy, "base": base}
    held_out = child(rounds["rule"], "split")["result"]["dataset_id"]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "load_average": os.getloadavg(),
        "base_model": base,
        "rule": RULE,
        "settings": job,
        "num_labelled_pairs": labels["num_accepted"],
        "reward_model": learnt["results"],
        "rounds": {name: [point(one) for one in run["rounds"]] for name, run in rounds.items()},
        "steps": {f"rounds, {name}": steps for name, steps in num_steps.items()} | steps_of_file,
        "win_rates": compare(client, state, held_out, models, judges, arguments),
    }


def ask(
    client: Client, dataset_id: str, policy: str, judge: dict[str, Any], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Ask for rounds from this policy, with this judge."""
    sampling = {"max_tokens": arguments.max_tokens, "seed": 1}
    asked: dict[str, Any] = client.rounds.create(
        job={"base_model": policy, "dataset_id": dataset_id, **JOB, **arguments.settings},
        judge=judge,
        num_rounds=arguments.rounds,
        generation={"num_prompts": arguments.per_round, "num_samples": arguments.samples, "sampling": sampling},
        evaluation={"held_out_fraction": arguments.held_out, "num_prompts": 1000},
        stop_early=False,
    )
    return asked


def ended_rounds(client: Client, rounds_id: str) -> dict[str, Any]:
    """Wait for rounds, and return them."""
    rounds: dict[str, Any] = client.rounds.wait(rounds_id, poll_seconds=2.0)
    if rounds["status"] != "finished":
        sys.exit(f"the rounds {rounds_id} are {rounds['status']}: {rounds['error']}")
    return rounds


def ended_job(client: Client, job_id: str) -> dict[str, Any]:
    """Wait for a job, and return it."""
    job: dict[str, Any] = client.jobs.wait(job_id, poll_seconds=2.0)
    if job["status"] != "succeeded":
        sys.exit(f"the job {job_id} ended as {job['status']}: {job['error']}")
    return job


def point(one: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of a round."""
    return {name: one[name] for name in ("number", "num_pairs", "win_rate", "win_rate_first", "drift")}


def submit_file_job(
    client: Client, labels: dict[str, Any], policy: str, num_steps: int, job: dict[str, Any]
) -> dict[str, Any]:
    """Ask for a job on the file's own pairs, as the rule labels them, of at least so many steps."""
    num_rows = labels["num_accepted"] * (1 - job.get("validation_fraction", 0.05))
    epochs = max(1, math.ceil(num_steps / math.ceil(num_rows / job["dpo"]["batch_size"])))
    settings = {**job, "dpo": {**job["dpo"], "epochs": epochs}, "sft": "skip"}
    submitted: dict[str, Any] = client.jobs.submit(base_model=policy, dataset_id=labels["id"], **settings)
    return submitted


def compare(
    client: Client,
    state: State,
    held_out: str,
    models: dict[str, str],
    judges: dict[str, dict[str, Any]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Return the win rates of each pair of models on the held-out prompts, by each judge."""
    settings = {"dataset_id": held_out, "sampling": {"max_tokens": arguments.max_tokens, "seed": 99}}
    answers = state.once(
        "answers", lambda: client.generations.create(models=list(models.values()), num_samples=4, **settings)
    )
    dataset_id = client.generations.wait(answers)["dataset_id"]
    found = {}
    for (judge, spec), pair in product(judges.items(), combinations(models, 2)):
        if judge != "rule" and f"rounds, {judge}" not in pair:
            continue
        name = f"{pair[0]} against {pair[1]}, by the {judge}"
        named = [models[one] for one in pair]
        make = partial(client.judgements.create, dataset_id=dataset_id, judge=spec, models=named)
        ended = client.judgements.wait(state.once(name, make))
        found[name] = {key: ended[key] for key in ("win_rate", "length_controlled", "num_ties", "num_pairs")}
    return found


def child(rounds: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return the first step of a stage."""
    return next(step for step in rounds["steps"] if step["stage"] == stage)


def steps_of(job: dict[str, Any]) -> int:
    """Return the updates of the preference stage."""
    return next(int(stage["steps"]) for stage in job["stages"] if stage["name"] == "dpo")


def shortest_prompts(data: Path, number: int, target: Path) -> Path:
    lines = sorted(data.read_text(encoding="utf-8").splitlines(), key=len)
    target.write_text("\n".join(lines[:number]) + "\n", encoding="utf-8")
    return target


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="preference pairs: prompt, chosen, rejected")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of a base model")
    parser.add_argument("--folder", type=Path, default=Path("data/bench-rounds"), help="where all of it is")
    parser.add_argument("--prompts", type=int, default=600, help="of the file, the shortest pairs")
    parser.add_argument("--per-round", type=int, default=96, help="prompts of a round")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--held-out", type=float, default=0.25)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--settings", type=json.loads, default={}, help="further fields of POST /jobs, as JSON")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
