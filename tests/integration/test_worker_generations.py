"""Generations by a worker's lane with the real engine: the dataset is the same whatever is killed in between."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from backends import BASE_MODEL, PROJECT, submit
from published_models import publish
from tiny_models import make_tiny_model
from toy_jobs import InProcessWorker, ServiceProcess, children_of, wait_for
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.domain.judging.generations import GenerationRequest
from core.services.backend import Backend
from core.services.chat import served_models
from core.services.chat.model_parts import find_parts
from core.services.datasets import contents
from core.services.generations import generations
from core.services.jobs import checkpoint_policies
from worker.app import TRAINER_COMMAND
from worker.device_slot import DeviceSlot
from worker.drain import Drain
from worker.light.generations import generations_on
from worker.light.lane import LightLane
from worker.runner.files import fetch_model
from worker.scratch import WorkerScratch

SECONDS = 120
PROMPTS: list[Any] = [f"Question {n}?" for n in range(12)] + [[{"role": "user", "content": "Say it plainly."}]]


@contextmanager
def lane(backend: Backend) -> Iterator[None]:
    drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    working = LightLane(backend, drain, scratch, 1, [generations_on("cpu", DeviceSlot())], name="generations")
    working.start()
    try:
        yield
    finally:
        drain.begin()
        working.join()
        scratch.close()


def ask(backend: Backend, **fields: Any) -> str:
    body: dict[str, Any] = {"models": [BASE_MODEL], "prompts": PROMPTS, "num_samples": 2} | fields
    body.setdefault("sampling", {"max_tokens": 12, "seed": 5})
    return generations.create(backend, PROJECT, GenerationRequest.model_validate(body)).id


def ended(backend: Backend, generation_id: str) -> generations.GenerationView:
    def look() -> generations.GenerationView:
        return generations.get(backend, PROJECT, generation_id)

    wait_for(lambda: look().finished_at is not None, f"the end of {look()}", SECONDS)
    return look()


def rows_of(backend: Backend, generation_id: str) -> list[dict[str, Any]]:
    found = ended(backend, generation_id)
    assert found.status == "succeeded", found
    assert found.dataset_id is not None
    text = b"".join(contents.original(backend, PROJECT, found.dataset_id).chunks)
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        del row["generation"]["generation_id"]
    return rows


def processes_of_responses() -> list[int]:
    """Forked processes are called by the kernel what others have in their command."""
    return [pid for pid in children_of(os.getpid()) if "responses" in words_of(pid)]


def words_of(pid: int) -> list[str]:
    try:
        texts = [Path(f"/proc/{pid}/{name}").read_text() for name in ("comm", "cmdline")]
    except OSError:
        return []
    return [texts[0].strip(), *texts[1].split("\0")]


def test_models_answer_the_same_whatever_is_killed(backend: Backend, tmp_path: Path) -> None:
    make_tiny_model(backend.settings.models_dir / "other", seed=1)
    asked = {"models": [BASE_MODEL, "other"], "num_samples": 12, "sampling": {"max_tokens": 8, "seed": 5}}
    with lane(backend):
        whole = ask(backend, **asked)
        undisturbed = rows_of(backend, whole)
    num_failed = generations.get(backend, PROJECT, whole).num_failed  # such a model says NUL now and then
    assert len(undisturbed) == 312 - num_failed
    assert {row["model"] for row in undisturbed} == {BASE_MODEL, "other"}
    assert len({json.dumps(row["response"]) for row in undisturbed}) > 200
    disturbed = ask(backend, **asked)
    with lane(backend):
        wait_for(processes_of_responses, "its process", SECONDS)
        process = processes_of_responses()[0]
        if (group := Path(f"/proc/{process}/autogroup")).exists():  # niceness alone counts inside its session only
            wait_for(lambda: group.read_text().split()[-2:] == ["nice", "10"], "training to come first", SECONDS)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: generations.get(backend, PROJECT, disturbed).num_done > 0, "a part", SECONDS)
    for point in ("generation.part_recorded", "generation.answered"):
        with ServiceProcess("tiny_worker.py", backend, tmp_path / "log", failpoints=f"{point}=kill") as worker:
            assert worker.wait() == -signal.SIGKILL
    with lane(backend):
        assert rows_of(backend, disturbed) == undisturbed


def test_a_policy_answers_the_prompts_that_its_job_held_out(backend: Backend, tmp_path: Path) -> None:
    add_rows(backend, make_rows(12))
    job_id = submit(backend, validation_fraction=0.25, max_length=64).id
    publish(backend, job_id, make_tiny_model(tmp_path / "policy", seed=3))
    asked = ask(
        backend,
        models=[job_id, BASE_MODEL],
        prompts=None,
        held_out_of=job_id,
        sampling={"max_tokens": 16, "temperature": 0},
    )
    with lane(backend):
        rows = rows_of(backend, asked)
    assert generations.get(backend, PROJECT, asked).num_prompts == 3
    assert len(rows) == 12
    assert all(row["generation"]["line"] for row in rows)
    own, base = ([row["response"] for row in rows if row["model"] == name] for name in (job_id, BASE_MODEL))
    assert own[::2] == own[1::2]  # without temperature the seed changes nothing
    assert own != base


def test_every_policy_of_a_job_with_lora_answers_as_its_own_folder_does(backend: Backend, tmp_path: Path) -> None:
    """The policy before DPO, one of a checkpoint and the published one; what differs is the adapter alone."""
    peft = pytest.importorskip("peft")
    add_rows(backend, make_rows(12))
    stage = {"epochs": 4, "batch_size": 4, "learning_rate": 3e-2}
    fields = FIELDS | {"sft": stage, "dpo": stage, "lora": {"rank": 4}, "sample_prompts": []}
    with InProcessWorker(backend, TRAINER_COMMAND):
        job_id = submit(backend, **fields).id
        assert run_to_end(backend, job_id).status.value == "succeeded"
    oldest = checkpoint_policies.list_checkpoints(backend, PROJECT, job_id)[-1].id
    load = partial(AutoModelForCausalLM.from_pretrained, dtype=torch.float32)
    base = load(backend.settings.models_dir / BASE_MODEL)
    policy = fetch_artifact(backend, job_id, tmp_path / "policy")
    models = {
        f"{job_id}@sft": peft.PeftModel.from_pretrained(base, fetch_sft_adapter(backend, job_id, tmp_path / "sft")),
        f"{job_id}@{oldest}": load(fetch_checkpoint(backend, job_id, oldest, tmp_path / "checkpoint")),
        job_id: load(policy),
    }
    with lane(backend):
        asked = {"models": list(models), "prompts": PROMPTS[:4], "num_samples": 1}
        rows = rows_of(backend, ask(backend, **asked, sampling={"max_tokens": 12, "temperature": 0}))
    said = {name: {row["prompt"]: row["response"] for row in rows if row["model"] == name} for name in models}
    tokenizer = AutoTokenizer.from_pretrained(policy)
    for name, model in models.items():
        assert said[name] == {prompt: greedy(model.eval(), tokenizer, prompt) for prompt in PROMPTS[:4]}, name
    # Two of three policies this small may say the same: that they differ at all is what could be told apart.
    assert len({json.dumps(answers) for answers in said.values()}) > 1


def fetch_checkpoint(backend: Backend, job_id: str, checkpoint_id: str, folder: Path) -> Path:
    for file in checkpoint_policies.find_archive(backend, PROJECT, job_id, checkpoint_id).files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        backend.store.get_file(file.key, folder / file.path)
    return folder


def fetch_sft_adapter(backend: Backend, job_id: str, folder: Path) -> Path:
    model = served_models.find(backend, PROJECT, f"{job_id}@sft")
    adapter = fetch_model(backend, model, find_parts(backend, model), folder, lambda: None).adapter_dir
    assert adapter is not None
    return adapter


def greedy(model: Any, tokenizer: Any, prompt: str) -> str:
    """The likeliest answer by plain transformers."""
    messages = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    new = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


def test_a_prompt_that_is_too_long_is_counted_and_the_others_are_answered(backend: Backend) -> None:
    with lane(backend):
        asked = ask(backend, prompts=["Why?", "long " * 500], num_samples=1)
        rows = rows_of(backend, asked)
    view = generations.get(backend, PROJECT, asked)
    assert [row["prompt"] for row in rows] == ["Why?"]
    assert view.num_failed == 1
    assert "context holds 512 tokens" in view.failures[0]["detail"]


def test_a_cancelled_one_frees_its_lane(backend: Backend) -> None:
    slow = ask(backend, num_samples=64, sampling={"max_tokens": 400, "temperature": 0})
    with lane(backend):
        wait_for(lambda: generations.get(backend, PROJECT, slow).status == "running", "its start", SECONDS)
        wait_for(processes_of_responses, "its process", SECONDS)
        generations.cancel(backend, PROJECT, slow)
        assert rows_of(backend, ask(backend, prompts=["Why?"], num_samples=1))
    assert generations.get(backend, PROJECT, slow).status == "cancelled"
    assert processes_of_responses() == []


def test_a_slot_goes_back_to_training_at_once() -> None:
    slot = DeviceSlot()
    with slot.borrowed() as is_held:
        assert is_held
        trained = threading.Event()

        def train() -> None:
            with slot.training():
                trained.set()

        thread = threading.Thread(target=train)
        thread.start()
        wait_for(lambda: slot.is_wanted, "the job")
        assert not trained.is_set()
    thread.join()
    assert trained.is_set()
    with slot.training(), slot.borrowed() as is_held:
        assert not is_held
