"""Engines that could answer chats, beside each other: transformers alone, its continuous batching, llama.cpp's server.

    python benchmarks/chat_engines.py BASE_MODEL_FOLDER [--threads 2] [--output FILE]

For each: the greedy answers and log-probabilities beside plain `generate` in float32, time to the first token of a
64-token prompt once warm, tokens a second of one answer and of eight at once. One engine after the other, three rounds,
best of each. Needs the worker's packages and, for llama.cpp, its converter (`make venv`). Prints one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import xllamacpp
from bench_datasets import describe_machine
from transformers import AutoModelForCausalLM

from core.domain.generation_protocol import End, Refused, Start, Token
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.model.loading import load_causal_lm
from worker.processes.generation.choice import open_engine

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = (
    "What is the capital of France?",
    "Explain in three sentences why the sky is blue, and what changes at sunset.",
    "Write a short note to a colleague who asked for the meeting to be moved to Thursday, and be kind about it.",
    "List five things to pack for a week of hiking in the rain.",
)
NUM_TOKENS, NUM_PROMPT, NUM_AT_ONCE, ROUNDS = 48, 64, 8, 3
Answer = tuple[list[int], list[float]]
Ask = Callable[[list[int], int], Answer]


def plain(folder: Path) -> tuple[Ask, Any]:
    """Return `generate` of transformers, one answer at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    model.generation_config.eos_token_id = None  # an answer goes on behind its end, so that all have one length

    def ask(ids: list[int], num_tokens: int) -> Answer:
        tokens = torch.tensor([ids])
        options = {"max_new_tokens": num_tokens, "do_sample": False}
        out = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), output_logits=True, return_dict_in_generate=True, **options
        )
        new = out.sequences[0, len(ids) :].tolist()
        logprobs = [float(step[0].float().log_softmax(-1)[token]) for step, token in zip(out.logits, new, strict=True)]
        return new, logprobs

    return ask, None


def batched(folder: Path, temperature: float = 0) -> tuple[Ask, Any]:
    """Return transformers' continuous batching, as the runner uses it."""
    waiting: dict[int, tuple[list[Token], threading.Event]] = {}
    numbers = iter(range(1000, 10**9))

    def hear(report: Token | End | Refused) -> None:
        if isinstance(report, Token):
            waiting[report.number][0].append(report)
        else:
            assert isinstance(report, End), report
            waiting[report.number][1].set()

    model = load_causal_lm(folder, dtype=torch.float32)
    engine, is_batched = open_engine(model, max_sequences=NUM_AT_ONCE, max_context=2048, emit=hear)
    assert is_batched

    def ask(ids: list[int], num_tokens: int) -> Answer:
        number = next(numbers)
        waiting[number] = ([], threading.Event())
        order = Start(
            number=number,
            prompt_ids=ids,
            max_tokens=num_tokens,
            end_ids=[],
            temperature=temperature,
            top_p=1,
            seed=number,
        )
        engine.start(order)
        tokens, is_over = waiting[number]
        is_over.wait()
        return [token.token_id for token in tokens], [token.logprob for token in tokens]

    return ask, engine


def llama_cpp(path: Path, num_threads: int) -> tuple[Ask, Any]:
    """Return llama.cpp's server inside xllamacpp, over a GGUF file."""
    params = xllamacpp.CommonParams()
    params.model.path, params.verbosity, params.warmup = str(path), -1, True
    params.n_ctx, params.n_parallel = 1024 * NUM_AT_ONCE, NUM_AT_ONCE
    params.cpuparams.n_threads = num_threads
    server = xllamacpp.Server(params)

    def ask(ids: list[int], num_tokens: int) -> Answer:
        request = {"prompt": ids, "n_predict": num_tokens, "temperature": 0.0, "n_probs": 1, "cache_prompt": False}
        answer = server.handle_completions(request | {"return_tokens": True})
        found = answer["choices"][0]["logprobs"]["content"]
        return [int(token["id"]) for token in found], [float(token["logprob"]) for token in found]

    return ask, server


def convert(folder: Path, target: Path) -> float:
    """Convert to a GGUF file in float32; return the seconds that it takes."""
    started = time.perf_counter()
    task = {"policy_dir": str(folder), "format": "gguf-f32", "name": "bench", "num_threads": 2}
    (target / "export.json").write_text(json.dumps(task))
    converter = Path(sys.prefix) / "gguf-converter"
    environment = os.environ | {"PYTHONPATH": f"{converter}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "worker.processes.gguf_conversion", str(target)]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def agreement(ask: Ask, prompts: list[list[int]], expected: list[Answer], end: int) -> dict[str, Any]:
    """Compare greedy answers with those of plain `generate`, up to their end or the first token that differs."""
    equal, difference = 0, 0.0
    for prompt, (tokens, logprobs) in zip(prompts, expected, strict=True):
        length = tokens.index(end) + 1 if end in tokens else len(tokens)
        tokens, (found, values) = tokens[:length], ask(prompt, length)
        same = next((place for place, pair in enumerate(zip(found, tokens, strict=False)) if len({*pair}) > 1), None)
        equal += same is None and len(found) == len(tokens)
        pairs = zip(values[:same], logprobs[:same], strict=False)
        difference = max([difference, *(abs(mine - theirs) for mine, theirs in pairs)])
    return {"equal_answers": f"{equal} of {len(prompts)}", "max_logprob_difference": difference}


def speed(ask: Ask, *, can_batch: bool) -> dict[str, float]:
    prompt = list(range(1000, 1000 + NUM_PROMPT))
    ask(prompt, 2)
    firsts, singles, togethers = [], [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        ask(prompt, 1)
        firsts.append(time.perf_counter() - started)
        started = time.perf_counter()
        ask(prompt, NUM_TOKENS)
        singles.append(NUM_TOKENS / (time.perf_counter() - started))
        if can_batch:
            with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
                started = time.perf_counter()
                list(pool.map(lambda shift: ask([*prompt, shift], NUM_TOKENS), range(2000, 2000 + NUM_AT_ONCE)))
                togethers.append(NUM_AT_ONCE * NUM_TOKENS / (time.perf_counter() - started))
    found = {"first_token_seconds": min(firsts), "tokens_per_second": max(singles)}
    if togethers:
        found["tokens_per_second_of_eight"] = max(togethers)
        found["gain_of_eight"] = max(togethers) / max(singles)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = PairTokenizer.open(options.base_model)
    prompts = [tokenizer.encode_prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
    found: dict[str, Any] = {"machine": describe_machine(), "threads": options.threads}
    ask, _ = plain(options.base_model)
    end = tokenizer.eos_ids[0]
    expected = [ask(prompt, NUM_TOKENS) for prompt in prompts]
    found["generate"] = speed(ask, can_batch=False)
    ask, engine = batched(options.base_model)
    found["continuous_batching"] = agreement(ask, prompts, expected, end) | speed(ask, can_batch=True)
    engine.close()
    with TemporaryDirectory() as folder:
        seconds = convert(options.base_model, Path(folder))
        ask, server = llama_cpp(Path(folder) / "policy.gguf", options.threads)
        found["llama_cpp"] = {"conversion_seconds": seconds} | agreement(ask, prompts, expected, end)
        found["llama_cpp"] |= speed(ask, can_batch=True)
        del server
    found["load_after"] = os.getloadavg()[0]
    text = json.dumps(found, indent=1)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
