"""Chats over HTTP beside their engine alone, and a training job beside a busy chat.

    python benchmarks/bench_chat.py BASE_MODEL_FOLDER [--threads 2] [--window 40] [--output FILE]

Starts `preftune serve` on a copy of the model. Measured, warm: time to the first token of a prompt of about 64 tokens,
tokens a second of one answer and of eight at once; the same decoding by the engine without API and runner, in the same
run; steps of a training job in windows alone and beside two chats that never pause. Prints one JSON object; run it on a
quiet machine.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import torch
from bench_datasets import describe_machine
from chat_engines import batched

from core.tokenization.pair_tokenizer import PairTokenizer

ROOT = Path(__file__).resolve().parents[1]
MODEL = "bench"
QUESTION = (
    "I have to write to a colleague who asked for the meeting to be moved to Thursday afternoon, and I cannot come "
    "then. Please write a short and kind note that offers Friday morning instead."
)
NUM_TOKENS, NUM_AT_ONCE, ROUNDS = 48, 8, 3
START_SECONDS, JOB_SECONDS = 120, 600


def ask(http: httpx.Client, num_tokens: int, number: int = 0) -> tuple[float, float, int]:
    """Stream one answer; return seconds to its first token, to its end, and its tokens."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{QUESTION} ({number})"}],
        "max_tokens": num_tokens,
        "temperature": 1,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, first, count = time.perf_counter(), 0.0, 0
    with http.stream("POST", "/v1/chat/completions", json=body, timeout=JOB_SECONDS) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            first = first or time.perf_counter() - started
            count = (chunk.get("usage") or {}).get("completion_tokens", count)
    return first, time.perf_counter() - started, count


def speeds(http: httpx.Client) -> dict[str, float]:
    ask(http, 2)
    firsts, rates, together = [], [], []
    for round_ in range(ROUNDS):
        first, seconds, count = ask(http, NUM_TOKENS, round_)
        firsts.append(first)
        rates.append((count - 1) / (seconds - first))
        with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
            started = time.perf_counter()
            counts = list(pool.map(lambda number: ask(http, NUM_TOKENS, number)[2], range(NUM_AT_ONCE)))
            together.append(sum(counts) / (time.perf_counter() - started))
    alone = [count / seconds for _, seconds, count in [ask(http, NUM_TOKENS, 7) for _ in range(ROUNDS)]]
    return {
        "first_token_seconds": statistics.median(firsts),
        "decoded_tokens_per_second": max(rates),
        "gain_of_eight": max(together) / max(alone),
    }


def engine_alone(folder: Path) -> float:
    """Return the engine's own decoding speed, in tokens a second."""
    tokenizer = PairTokenizer.open(folder)
    prompt = tokenizer.encode_prompt([{"role": "user", "content": f"{QUESTION} (0)"}])
    answer, engine = batched(folder, temperature=1)  # as the chats are sampled
    answer(prompt, 2)
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        answer(prompt, 1)
        first = time.perf_counter() - started
        started = time.perf_counter()
        answer(prompt, NUM_TOKENS)
        rates.append((NUM_TOKENS - 1) / (time.perf_counter() - started - first))
    engine.close()
    return max(rates)


def training_beside_chat(http: httpx.Client, window_seconds: float) -> dict[str, float]:
    """Count the steps of one job in windows alone and beside two busy chats, in turn."""
    rows = (ROOT / "examples" / "house-style.jsonl").read_bytes()
    dataset = http.post("/datasets", content=rows, timeout=60).raise_for_status().json()["id"]
    job = {
        "base_model": MODEL,
        "dataset_id": dataset,
        "sft": "skip",
        "dpo": {"epochs": 1000, "batch_size": 2},
        "lora": {"rank": 4},
        "max_length": 256,
        "precision": "fp32",
        "checkpoint_every_steps": 1_000_000,
        "validation_fraction": 0,
    }
    job_id = http.post("/jobs", json=job).raise_for_status().json()["id"]
    deadline = time.monotonic() + JOB_SECONDS
    while steps_of(http, job_id) < 2:
        if time.monotonic() > deadline:
            raise RuntimeError("the job does not train")
        time.sleep(1)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for is_busy in (False, True, False, True):
        is_over = threading.Event()
        chats = [threading.Thread(target=chat_on, args=(http, is_over)) for _ in range(2 if is_busy else 0)]
        for chat in chats:
            chat.start()
        begun, started = steps_of(http, job_id), time.perf_counter()
        time.sleep(window_seconds)
        rates[is_busy].append((steps_of(http, job_id) - begun) / (time.perf_counter() - started))
        is_over.set()
        for chat in chats:
            chat.join()
    http.post(f"/jobs/{job_id}/cancel")
    alone, beside = statistics.mean(rates[False]), statistics.mean(rates[True])
    return {"steps_per_second_alone": alone, "beside_chat": beside, "kept_share": beside / alone}


def steps_of(http: httpx.Client, job_id: str) -> int:
    job = http.get(f"/jobs/{job_id}").raise_for_status().json()
    if job["status"] == "failed":
        raise RuntimeError(str(job["error"]))
    return int(job["progress"]["step"]) if job["stage"] == "dpo" else 0


def chat_on(http: httpx.Client, is_over: threading.Event) -> None:
    while not is_over.is_set():
        ask(http, NUM_TOKENS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=float, default=40)
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"machine": describe_machine(), "threads": options.threads}
    with TemporaryDirectory() as folder, socket.socket() as probe:
        shutil.copytree(options.base_model, Path(folder) / "models" / MODEL)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [sys.executable, "-m", "preftune", "serve", "--port", str(port), "--data-dir", f"{folder}/data"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
        own = {"PREFTUNE_RUNNER_THREADS": str(options.threads), "PREFTUNE_NUM_THREADS": str(options.threads)}
        with (Path(folder) / "log").open("wb") as log:
            service = subprocess.Popen(
                [*command, "--models-dir", f"{folder}/models"], env=kept | own, stdout=log, stderr=log
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
                wait_for(http)
                found["chat"] = speeds(http)
                if not options.no_training:
                    found["training"] = training_beside_chat(http, options.window)
        finally:
            service.terminate()
            service.wait()
    found["engine_tokens_per_second"] = engine_alone(options.base_model)
    found["share_of_engine"] = found["chat"]["decoded_tokens_per_second"] / found["engine_tokens_per_second"]
    found["load_after"] = os.getloadavg()[0]
    text = json.dumps(found, indent=1)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)


def wait_for(http: httpx.Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            http.get("/health/ready").raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
