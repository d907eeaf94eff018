"""Answers in fixed batches beside plain `generate` one by one: tokens a second on the same processors.

    python benchmarks/bench_generations.py BASE_MODEL_FOLDER [--threads 2] [--prompts 32] [--samples 4] [--output FILE]

The same prompts and sampling (temperature 1) for both; answers end where they end, so tokens a second are compared.
Three figures: `generate` of transformers for every eighth answer, the batches of one loaded model, and the whole
process that a worker starts, loading included. Ends with code 1 where the batches are less than five times as fast as
`generate`. Run it on a quiet machine.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench_datasets import describe_machine
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.domain.generation_protocol import GenerationTask
from core.domain.judging.generations import PART_ANSWERS, answer_seed, plan_parts
from core.domain.judging.responses_task import PROMPTS_FILE, TASK_FILE, ResponsesTask, part_file
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.model.loading import load_causal_lm
from worker.child_environment import trainer_environment
from worker.light.generations import COMMAND
from worker.processes.generation.fixed_batches import BatchSampling, FixedBatches, Wanted

LEAST_GAIN = 5.0
MAX_TOKENS, MAX_CONTEXT = 128, 2048
PLAIN_EVERY = 8
QUESTIONS = (
    "Explain in {n} sentences why the sky is blue, and what changes at sunset.",
    "Write a short note to {n} colleagues who asked for the meeting to be moved to Thursday, and be kind about it.",
    "List {n} things to pack for a week of hiking in the rain, each with a reason.",
    "What should somebody know who visits a museum with {n} children for the first time?",
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    prompts = [
        [{"role": "user", "content": QUESTIONS[n % len(QUESTIONS)].format(n=n + 2)}] for n in range(arguments.prompts)
    ]
    tokenizer = PairTokenizer.open(arguments.model)
    wanted = [
        Wanted(prompt_ids=tuple(tokenizer.encode_prompt(prompt)), seed=answer_seed(0, place, sample))  # type: ignore[arg-type]
        for place, prompt in enumerate(prompts)
        for sample in range(arguments.samples)
    ]
    found: dict[str, Any] = {"machine": describe_machine(), "threads": arguments.threads, "num_answers": len(wanted)}
    found["load_before"] = os.getloadavg()
    found["generate"] = plain(arguments.model, wanted, tokenizer.eos_ids)
    found["batches"] = in_batches(arguments.model, wanted, tokenizer.eos_ids)
    found["process"] = whole_process(arguments, prompts)
    found["gain"] = found["batches"]["tokens_per_second"] / found["generate"]["tokens_per_second"]
    found["gain_of_process"] = found["process"]["tokens_per_second"] / found["generate"]["tokens_per_second"]
    found["load_after"] = os.getloadavg()
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0 if found["gain"] >= LEAST_GAIN else 1


def plain(folder: Path, wanted: list[Wanted], end_ids: tuple[int, ...]) -> dict[str, float]:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    options = {"max_new_tokens": MAX_TOKENS, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    num_tokens, started = 0, 0.0
    for number, one in enumerate([wanted[0], *wanted[::PLAIN_EVERY]]):
        if number == 1:  # the first one warms up
            num_tokens, started = 0, time.perf_counter()
        torch.manual_seed(one.seed % 2**32)
        ids = torch.tensor([one.prompt_ids])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=list(end_ids), **options)  # type: ignore[operator]
        num_tokens += out.shape[1] - ids.shape[1]
    return _figures(num_tokens, time.perf_counter() - started)


def in_batches(folder: Path, wanted: list[Wanted], end_ids: tuple[int, ...]) -> dict[str, float]:
    model = load_causal_lm(str(folder), dtype=torch.float32, device="cpu")
    sampling = BatchSampling(max_tokens=MAX_TOKENS, temperature=1, top_p=1, end_ids=frozenset(end_ids))
    batches = FixedBatches(model, sampling)
    started, num_tokens = time.perf_counter(), 0
    for first in range(0, len(wanted), PART_ANSWERS):
        num_tokens += sum(len(answer.token_ids) for answer in batches.answer(wanted[first : first + PART_ANSWERS]))
    return _figures(num_tokens, time.perf_counter() - started) | {"is_batched": batches.is_batched}


def whole_process(arguments: argparse.Namespace, prompts: list[Any]) -> dict[str, float]:
    parts = plan_parts(1, len(prompts) * arguments.samples, PART_ANSWERS)
    loading = GenerationTask(
        model_dir=str(arguments.model),
        adapter_dir=None,
        precision="fp32",
        device="cpu",
        num_threads=arguments.threads,
        niceness=0,
        max_sequences=1,
        max_context=MAX_CONTEXT,
    )
    task = ResponsesTask(
        model=asdict(loading),
        tokenizer_dir=str(arguments.model),
        template_kwargs={},
        rendered_at="2026-01-01T00:00:00+00:00",
        sampling={"max_tokens": MAX_TOKENS, "temperature": 1.0, "top_p": 1.0, "seed": 0},
        num_samples=arguments.samples,
        parts=[asdict(part) for part in parts],
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / TASK_FILE).write_text(json.dumps(asdict(task)), encoding="utf-8")
        (folder / PROMPTS_FILE).write_text(json.dumps([{"prompt": prompt} for prompt in prompts]), encoding="utf-8")
        started = time.perf_counter()
        environment = trainer_environment(folder, arguments.threads)
        subprocess.run([*COMMAND, name], check=True, env=environment, cwd=Path(__file__).resolve().parents[1])
        seconds = time.perf_counter() - started
        answers = [answer for part in parts for answer in json.loads((folder / part_file(part.number)).read_text())]
    return _figures(sum(answer.get("num_tokens", 0) for answer in answers), seconds)


def _figures(num_tokens: int, seconds: float) -> dict[str, float]:
    return {"num_tokens": num_tokens, "seconds": seconds, "tokens_per_second": num_tokens / seconds}


if __name__ == "__main__":
    sys.exit(main())
