"""Chats of trained policies beside plain transformers on the downloaded folder: `make test-chat`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from api_server import RunningApi, serve
from backends import PROJECT, submit
from runner_process import running_runner
from tiny_models import make_tiny_model
from toy_jobs import InProcessWorker, await_end
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.services.chat import answering
from core.services.chat.answering import Question
from core.services.chat.open_runner import open_runner
from core.services.chat.runner import Sampling, ScoreRequest
from core.services.requests import scores
from worker.app import TRAINER_COMMAND
from worker.drain import Drain
from worker.light.lane import LightLane
from worker.light.scores import SCORES
from worker.scratch import WorkerScratch

pytestmark = pytest.mark.slow
BASE = "base"
NUM_TOKENS = 24
SCORE_SECONDS = 300
USER = {"role": "user", "content": "Question 3?"}
CONVERSATIONS = ([USER], [{"role": "system", "content": "Say it plainly."}, USER])
BF16_TOLERANCE = 0.05
"""Nats a token. Logits in bf16 have steps of 1/128 at 1 to 2, and of 1/8 at 16 to 32: larger models differ by more."""


@contextmanager
def trained(folder: Path, architecture: str, **changes: Any) -> Iterator[tuple[RunningApi, str]]:
    """An API with a runner, and a job that has ended."""
    make_tiny_model(folder / "models" / BASE, architecture)
    with running_runner(folder) as runner, serve(folder, **runner.settings()) as api:
        add_rows(api.backend, make_rows(12))
        with InProcessWorker(api.backend, TRAINER_COMMAND):
            job_id = submit(api.backend, **FIELDS | {"sample_prompts": [], "base_model": BASE} | changes).id
            job = run_to_end(api.backend, job_id)
        assert job.status.value == "succeeded", job.error
        yield api, job_id


def compare(api: RunningApi, model: str, folder: Path) -> None:
    """Greedy answers of a model and of plain transformers on its folder."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for messages in CONVERSATIONS:
        asked = {"model": model, "messages": messages, "temperature": 0, "max_tokens": NUM_TOKENS, "logprobs": True}
        answer = api.http.post("/v1/chat/completions", json=asked, timeout=120).json()
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        num_prompt = prompt["input_ids"].shape[1]
        new = plain.generate(**prompt, max_new_tokens=NUM_TOKENS, do_sample=False)[0, num_prompt:]
        with torch.no_grad():
            ids = torch.cat([prompt["input_ids"][0], new])[None]
            logps = plain(ids).logits[0, num_prompt - 1 : -1].float().log_softmax(-1)
        expected = logps.gather(-1, new[:, None])[:, 0].tolist()
        content = answer["choices"][0]["logprobs"]["content"]
        assert answer["usage"]["prompt_tokens"] == num_prompt
        assert answer["choices"][0]["message"]["content"] == tokenizer.decode(new, skip_special_tokens=True)
        assert answer["usage"]["completion_tokens"] == len(new)
        assert [token["logprob"] for token in content] == pytest.approx(expected, abs=1e-4)


def scored(api: RunningApi, model: str, messages: Any, text: str) -> float:
    """The log-probability of a text with its end, by the runner's plain scoring."""

    async def work() -> float:
        runner = open_runner(api.backend)
        try:
            prepared = answering.prepare(api.backend, PROJECT, Question(model=model, prompt=messages))
            tokenizer = prepared.shared.tokenizer
            row: Any = {"line": 1, "prompt": messages, "response": [{"role": "assistant", "content": text}]}
            ids = tokenizer.encode_demonstration(row).response_ids
            asked = ScoreRequest(model=prepared.model, prompt_ids=prepared.prompt_ids, response_ids=ids)
            return sum(await runner.score(asked))
        finally:
            await runner.close()

    return asyncio.run(work())


def score_by_the_lane(api: RunningApi, job_id: str, item: dict[str, Any]) -> dict[str, Any]:
    """What `POST /jobs/{id}/scores` gives for one item."""
    drain, scratch = Drain(5), WorkerScratch(api.settings.scratch_dir)
    lane = LightLane(api.backend, drain, scratch, 1, [SCORES])
    lane.start()
    try:
        asked = scores.create(api.backend, PROJECT, job_id, {"items": [item]})
        answer = await_end(lambda: scores.get(api.backend, PROJECT, job_id, asked.id), SCORE_SECONDS)
    finally:
        drain.begin()
        lane.join()
        scratch.close()
    assert answer.results is not None, answer
    return answer.results[0]


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma", "gpt2"])
def test_answers_are_those_of_the_downloaded_folder(tmp_path: Path, architecture: str, lora: Any) -> None:
    with trained(tmp_path, architecture, lora=lora) as (api, job_id):
        policy = fetch_artifact(api.backend, job_id, tmp_path / "policy")
        compare(api, job_id, policy)
        compare(api, BASE, tmp_path / "models" / BASE)
        sft = {"model": f"{job_id}@sft", "messages": [USER], "max_tokens": 4, "temperature": 0, "reference": True}
        assert api.http.post("/v1/chat/completions", json=sft, timeout=120).status_code == 200
        (checkpoint, *_) = api.http.get(f"/jobs/{job_id}/checkpoints").json()["data"]
        named = {"model": f"{job_id}@{checkpoint['id']}", "messages": [USER], "max_tokens": 4}
        assert api.http.post("/v1/chat/completions", json=named, timeout=120).status_code == 200
        item = {"prompt": [USER], "response": [{"role": "assistant", "content": "Good answer 3."}]}
        result = score_by_the_lane(api, job_id, item)
        assert scored(api, job_id, [USER], "Good answer 3.") == pytest.approx(result["policy_logp"], abs=1e-4)
        assert scored(api, f"{job_id}@sft", [USER], "Good answer 3.") == pytest.approx(
            result["reference_logp"], abs=1e-4
        )


def forced(api: RunningApi, model: str, folder: Path, num_answers: int) -> float:
    """The largest difference, at any token of any answer, from plain transformers that are given the same tokens."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    async def ask(messages: Any) -> list[tuple[list[int], answering.Answer]]:
        runner = open_runner(api.backend)
        sampling = Sampling(max_tokens=NUM_TOKENS, temperature=1, seed=1)
        question = Question(model=model, prompt=messages, num_answers=num_answers, sampling=sampling)
        try:
            prepared = answering.prepare(api.backend, PROJECT, question)
            return [(prepared.prompt_ids, answer) for answer in await answering.answer(runner, prepared)]
        finally:
            await runner.close()

    largest = 0.0
    for prompt_ids, answer in [found for messages in CONVERSATIONS for found in asyncio.run(ask(messages))]:
        ids = torch.tensor([token.token_id for token in answer.tokens])
        with torch.no_grad():
            logits = plain(torch.cat([torch.tensor(prompt_ids), ids])[None]).logits[0, len(prompt_ids) - 1 : -1]
        expected = logits.float().log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        found = torch.tensor([token.logprob for token in answer.tokens])
        largest = max(largest, float((found - expected).abs().max()))
    return largest


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["full", "lora"])
def test_answers_in_bf16_are_near(tmp_path: Path, lora: Any) -> None:
    with trained(tmp_path, "llama", lora=lora, precision="bf16") as (api, job_id):
        folder = fetch_artifact(api.backend, job_id, tmp_path / "policy")
        for num_answers in (1, 4):  # products of other shapes add up in another order
            assert forced(api, job_id, folder, num_answers) < BF16_TOLERANCE
