"""What a request for the scores of 1,000 pairs takes, beside the engine's own forward pass over the same pairs.

    python benchmarks/bench_scores.py --model <dir> --rows pairs.jsonl --work <dir> [--pairs 1000] [--out result.json]

The request is the process that the light lane starts, from its start to its end: Python and torch loaded, texts
encoded, two models loaded, both sides of every pair scored under both, results written. The forward pass is the
engine's over a part of the same pairs, loaded and warmed up. Of HH transcripts the last turn is the prompt; `--words`
cuts texts short, which is hard on the request: what does not grow with the texts weighs more. Ends with code 1 if the
request runs at less than 0.8 of the forward pass's speed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import transformers
from workloads import Pair, read_pairs

from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.job_spec import JobRequest, resolve_request
from core.tokenization.encode_file import encode_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData
from core.training.data.micro_batches import split_micro_batches
from core.training.data.order import row_groups
from core.training.data.packing import pack_pairs
from core.training.measures.implicit_rewards import GROUP_ROWS
from core.training.model.loading import load_causal_lm
from core.training.model.logps import pair_logps
from worker.child_environment import trainer_environment
from worker.light.scores import SCORER_COMMAND

LEAST_RATIO = 0.8
MICRO_BATCH_TOKENS = 2048
MAX_LENGTH = 512
TURN = "\n\nHuman:"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--read", type=int, default=2000, help="rows to choose the shortest of")
    parser.add_argument("--words", type=int, default=1000, help="kept of each text")
    parser.add_argument("--part", type=int, default=8, help="the forward pass takes every so manieth group of pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True)
    pairs = shortest(arguments)
    request_seconds = time_request(arguments, pairs)
    data = encode(arguments, pairs)
    forward = time_forward(arguments, data)
    num_tokens = 2 * count_tokens(data, np.arange(len(data)))
    ratio = num_tokens / request_seconds / forward["tokens_per_second"]
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {"torch": str(torch.__version__), "transformers": transformers.__version__},
        "model": arguments.model.name,
        "threads": arguments.threads,
        "pairs": len(data),
        "tokens_under_both_models": num_tokens,
        "request": {"seconds": request_seconds, "tokens_per_second": num_tokens / request_seconds},
        "forward": forward,
        "ratio": ratio,
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if ratio >= LEAST_RATIO else 1


def shortest(arguments: argparse.Namespace) -> list[Pair]:
    pairs = []
    for pair in read_pairs(arguments.rows, arguments.read):
        texts = pair | {"prompt": pair["prompt"].rpartition(TURN)[2]}
        pairs.append({name: " ".join(text.split()[: arguments.words]) for name, text in texts.items()})
    pairs = [pair for pair in pairs if pair["chosen"] != pair["rejected"] and all(pair.values())]
    return sorted(pairs, key=lambda pair: sum(map(len, pair.values())))[: arguments.pairs]


def time_request(arguments: argparse.Namespace, pairs: list[Pair]) -> float:
    request = JobRequest(base_model="bench", dataset_id="bench", max_length=MAX_LENGTH, precision="fp32")
    spec = resolve_request(request, num_parameters=1, num_pairs=len(pairs), default_beta=0.1)
    task = {
        "spec": spec.model_dump(mode="json") | {"micro_batch_tokens": MICRO_BATCH_TOKENS},
        "base_model_dir": str(arguments.model.resolve()),
        "policy_dir": str(arguments.model.resolve()),
        "sft_dir": None,
        "is_pairs": True,
        "rows": pairs,
        "num_threads": arguments.threads,
        "submitted_at": datetime.now(UTC).isoformat(),
    }
    (arguments.work / "tmp").mkdir()
    (arguments.work / "scoring.json").write_text(json.dumps(task))
    start = perf_counter()
    environment = trainer_environment(arguments.work, arguments.threads)
    subprocess.run([*SCORER_COMMAND, str(arguments.work.resolve())], env=environment, check=True)
    seconds = perf_counter() - start
    results = json.loads((arguments.work / "results.json").read_text())
    assert sum("margin" in result for result in results) == len(pairs)
    return seconds


def encode(arguments: argparse.Namespace, pairs: list[Pair]) -> EncodedData:
    source = arguments.work / "pairs.jsonl"
    source.write_text("".join(json.dumps({"line": n, **pair}) + "\n" for n, pair in enumerate(pairs, 1)))
    tokenizer, target = PairTokenizer.open(arguments.model), arguments.work / "pairs"
    encode_file(source, tokenizer, target, kind=DatasetKind.PREFERENCE, max_length=MAX_LENGTH, num_processes=1)
    return EncodedData.open(target)


def count_tokens(data: EncodedData, rows: np.ndarray) -> int:
    """As packed: a pair's prompt once."""
    return int((data.prompt_lengths[rows] + data.first_lengths[rows] + data.second_lengths[rows]).sum())


@torch.no_grad()
def time_forward(arguments: argparse.Namespace, data: EncodedData) -> dict[str, Any]:
    torch.set_num_threads(arguments.threads)
    model = load_causal_lm(arguments.model, dtype=torch.float32)
    groups = list(row_groups(len(data), GROUP_ROWS))[:: arguments.part]
    batches = [rows for group in groups for rows in split_micro_batches(data, group, MICRO_BATCH_TOKENS)]
    pair_logps(model, pack_pairs(data, batches[0], model.device), needs_prefix_sums=True)
    start = perf_counter()
    for rows in batches:
        pair_logps(model, pack_pairs(data, rows, model.device), needs_prefix_sums=True)
    seconds = perf_counter() - start
    num_tokens = sum(count_tokens(data, np.asarray(rows)) for rows in batches)
    return {"seconds": seconds, "tokens": num_tokens, "tokens_per_second": num_tokens / seconds}


if __name__ == "__main__":
    sys.exit(main())
