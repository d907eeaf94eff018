"""Rounds beside a job on a fixed file, at equal training steps: win rates on held-out prompts by a rule.

    python benchmarks/bench_rounds.py --data pairs.jsonl --base-model <folder> [--folder data/bench-rounds]

The rule: an answer is exactly one sentence. The rounds answer prompts of the file, are judged by the rule, and train on
the best answer of a prompt against the worst. The other job trains on pairs of the same file, labelled by the same
rule, from the same base model with the same settings, for as many steps or more. Then both policies and the base model
answer the held-out prompts, and the rule compares each with each; the intervals are over prompts.

Everything is in the folder: started again with the same arguments, it goes on where it was. Linux only.
"""

import argparse
import json
import math
import os
import sys
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import transformers
from bench_train import describe_machine

from cli.demo import running_service
from preftune import Client

RULE = {"kind": "regex", "pattern": r"^\s*[^.!?\s][^.!?]*[.!?]+\s*$"}
"""Exactly one sentence: text, then its end, and nothing behind it."""
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
    base = arguments.base_model.name
    dataset_id = state.once("dataset", lambda: client.datasets.upload(pairs))
    sampling = {"max_tokens": arguments.max_tokens, "seed": 1}
    rounds_id = state.once(
        "rounds",
        lambda: client.rounds.create(
            job={"base_model": base, "dataset_id": dataset_id, **JOB, **arguments.settings},
            judge=arguments.judge,
            num_rounds=arguments.rounds,
            generation={"num_prompts": arguments.per_round, "num_samples": arguments.samples, "sampling": sampling},
            evaluation={"held_out_fraction": arguments.held_out, "num_prompts": 1000},
            stop_early=False,
        ),
    )
    rounds = client.rounds.wait(rounds_id, poll_seconds=2.0)
    if rounds["status"] != "finished":
        sys.exit(f"the rounds are {rounds['status']}: {rounds['error']}")
    parts = next(step["result"] for step in rounds["steps"] if step["stage"] == "split")
    jobs = [client.jobs.get(one["policy"]) for one in rounds["rounds"]]
    num_steps = sum(steps_of(job) for job in jobs)
    other = file_job(client, state, parts["train_dataset_id"], base, num_steps, arguments)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "load_average": os.getloadavg(),
        "base_model": base,
        "judge": arguments.judge,
        "settings": {**JOB, **arguments.settings},
        "num_held_out_prompts": parts["num_held_out"],
        "rounds": [
            {name: one[name] for name in ("number", "num_pairs", "win_rate", "win_rate_first", "drift")}
            for one in rounds["rounds"]
        ],
        "steps": {"rounds": num_steps, "file": steps_of(other)},
        "win_rates": compare(client, state, parts["dataset_id"], [jobs[-1]["id"], other["id"], base], arguments),
    }


def file_job(
    client: Client, state: State, dataset_id: str, base: str, num_steps: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train on the file's own pairs, as the rule labels them, for at least so many steps."""
    labelled = state.once("labels", lambda: client.judgements.create(dataset_id=dataset_id, judge=arguments.judge))
    found = client.judgements.wait(labelled)
    dataset = client.datasets.get(found["dataset_id"])
    job = {**JOB, **arguments.settings}
    train = dataset["num_accepted"] * (1 - job.get("validation_fraction", 0.05))
    epochs = max(1, math.ceil(num_steps / math.ceil(train / job["dpo"]["batch_size"])))
    settings = {**job, "dpo": {**job["dpo"], "epochs": epochs}, "sft": "skip"}
    job_id = state.once("file_job", lambda: client.jobs.submit(base_model=base, dataset_id=dataset["id"], **settings))
    ended = client.jobs.wait(job_id, poll_seconds=2.0)
    if ended["status"] != "succeeded":
        sys.exit(f"the job on the file ended as {ended['status']}: {ended['error']}")
    return ended


def compare(
    client: Client, state: State, dataset_id: str, models: list[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return the win rates of each pair of models on the held-out prompts."""
    names = dict(zip(models, ("rounds", "file", "base"), strict=True))
    asked = {"models": models, "dataset_id": dataset_id, "sampling": {"max_tokens": arguments.max_tokens, "seed": 99}}
    answers = state.once("answers", lambda: client.generations.create(**asked))
    dataset = client.generations.wait(answers)["dataset_id"]
    found = {}
    for pair in combinations(models, 2):
        name = f"{names[pair[0]]} against {names[pair[1]]}"
        settings = {"dataset_id": dataset, "judge": arguments.judge, "models": list(pair)}
        judged = state.once(name, partial(client.judgements.create, **settings))
        ended = client.judgements.wait(judged)
        found[name] = {key: ended[key] for key in ("win_rate", "length_controlled", "num_ties", "num_pairs")}
    return found


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
    parser.add_argument("--prompts", type=int, default=400, help="of the file, the shortest pairs")
    parser.add_argument("--per-round", type=int, default=96, help="prompts of a round")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--held-out", type=float, default=0.25)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--judge", type=json.loads, default=RULE, help="of another kind than the rule, as JSON")
    parser.add_argument("--settings", type=json.loads, default={}, help="further fields of POST /jobs, as JSON")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
