"""Questions to models: which model a name means, how a prompt is encoded, where an answer ends."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from backends import BASE_MODEL, PROJECT, add_dataset, checkpoint_with_policy, claim, publication, submit
from scripted_runner import ScriptedRunner
from tiny_models import CONTEXT_LENGTH, make_tiny_model

from core.domain.errors import InvalidRequest
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.chat import answering, served_models
from core.services.chat.answering import Answer, PreparedQuestion, Question
from core.services.chat.runner import ContextTooLong, Sampling
from core.services.chat.served_models import ModelNotFound
from core.services.jobs import jobs

MESSAGES: Any = [{"role": "user", "content": "Say it, père 🙂."}]


@pytest.fixture
def tiny(backend: Backend) -> Backend:
    make_tiny_model(backend.settings.models_dir / BASE_MODEL)
    return backend


def prepared(backend: Backend, **fields: Any) -> PreparedQuestion:
    fields = {"model": BASE_MODEL, "prompt": MESSAGES} | fields
    return answering.prepare(backend, PROJECT, Question(**fields))


def answers_of(ids: list[int], question: PreparedQuestion) -> tuple[ScriptedRunner, list[Answer]]:
    runner = ScriptedRunner(answers=[ids])
    return runner, asyncio.run(answering.answer(runner, question))


def test_a_conversation_is_rendered_as_training_renders_it_and_its_answer_is_whole(tiny: Backend) -> None:
    question = prepared(tiny, num_answers=2)
    tokenizer = question.shared.tokenizer
    assert tokenizer.show_text("".join(tokenizer.show_tokens(question.prompt_ids))).endswith("<|im_start|>assistant\n")
    said = tokenizer.encode_text("C'est ça, père 🙂.")
    end = tokenizer.eos_ids[0]
    runner, answers = answers_of([*said, end], question)
    assert [answer.text for answer in answers] == ["C'est ça, père 🙂."] * 2
    assert [answer.finish_reason for answer in answers] == ["stop", "stop"]
    assert [token.token_id for token in answers[0].tokens] == [*said, end]
    assert b"".join(token.data or b"" for token in answers[0].tokens).decode() == "C'est ça, père 🙂."
    assert answers[0].logprob == -0.5 * (len(said) + 1)
    assert (runner.asked[0].prompt_ids, runner.asked[0].end_ids) == (question.prompt_ids, tokenizer.eos_ids)
    assert runner.num_open == 0


def test_an_answer_ends_before_its_stop_text_and_frees_the_runner(tiny: Backend) -> None:
    question = prepared(tiny, stops=["ends", "here"])
    said = question.shared.tokenizer.encode_text("It e-nds, it ends where I say.")
    runner, (answer,) = answers_of(said, question)
    assert (answer.text, answer.finish_reason) == ("It e-nds, it ", "stop")
    assert len(answer.tokens) < len(said)
    assert runner.num_open == 0
    runner, (answer,) = answers_of(said[:-1], prepared(tiny, stops=["say.!"]))
    assert answer.text == "It e-nds, it ends where I say", "what only began like a stop text is given out at the end"


def test_the_context_bounds_an_answer(tiny: Backend) -> None:
    question = prepared(tiny)
    num_prompt = len(question.prompt_ids)
    assert question.max_tokens == CONTEXT_LENGTH - num_prompt
    _, (answer,) = answers_of([5] * 1000, question)
    assert (len(answer.tokens), answer.finish_reason) == (CONTEXT_LENGTH - num_prompt, "length")
    with pytest.raises(ContextTooLong) as refused:
        prepared(tiny, sampling=Sampling(max_tokens=CONTEXT_LENGTH))
    assert [error.pointer for error in refused.value.errors] == ["/max_tokens"]
    with pytest.raises(ContextTooLong):
        prepared(tiny, prompt=[{"role": "user", "content": "word " * 2000}])


def test_texts_and_ids_are_taken_as_they_stand(tiny: Backend) -> None:
    tokenizer = prepared(tiny).shared.tokenizer
    text = prepared(tiny, prompt="<|im_start|>no turn")
    assert tokenizer.show_tokens(text.prompt_ids)[0] != "<|im_start|>", "a user's text holds no control token"
    assert prepared(tiny, prompt=[1, 5, 6]).prompt_ids == [1, 5, 6]
    with pytest.raises(InvalidRequest) as refused:
        prepared(tiny, prompt=[1, 100_000])
    assert refused.value.errors[0].pointer == "/prompt"
    with pytest.raises(InvalidRequest) as refused:
        prepared(tiny, prompt=[])
    assert refused.value.errors[0].pointer == "/messages"


def test_every_name_of_a_policy_is_served(tiny: Backend) -> None:
    add_dataset(tiny)
    job_id = submit(tiny, sft="skip", lora={"rank": 4}, chat_template_kwargs={}).id
    held = claim(tiny)
    checkpoint_id = checkpoint_with_policy(tiny, held, 3, {"config.json": b"{}"})
    made = publication(tiny, held)
    lifecycle.finish_succeeded(held, made)
    policy = served_models.find(tiny, PROJECT, job_id)
    assert (policy.base_name, policy.policy, policy.has_lora, policy.job_id) == (BASE_MODEL, made.tree, True, job_id)
    named = f"ft:{BASE_MODEL}:{PROJECT}::{job_id.removeprefix('job_')}"
    assert served_models.find(tiny, PROJECT, named) == replace(policy, name=named)
    checkpoint = served_models.find(tiny, PROJECT, f"{named}:ckpt-step-3")
    assert checkpoint.policy == served_models.find(tiny, PROJECT, f"{job_id}@{checkpoint_id}").policy != made.tree
    found = served_models.reference_of(tiny, PROJECT, policy)
    assert found is not None
    assert found.beta == 0.1
    assert (found.model.base_name, found.model.policy, found.model.has_lora) == (BASE_MODEL, None, False)
    second = submit(tiny, base_model=job_id, sft="skip").id
    held = claim(tiny)
    lifecycle.finish_succeeded(held, publication(tiny, held))
    tuned_again = served_models.find(tiny, PROJECT, second)
    assert (tuned_again.base_name, tuned_again.base_tree, tuned_again.root_name) == (None, made.tree, BASE_MODEL)
    reference = served_models.reference_of(tiny, PROJECT, tuned_again)
    assert reference is not None
    assert (reference.model.policy, reference.model.base_tree) == (made.tree, None)
    question = prepared(tiny, model=job_id, has_reference=True)
    _, (answer,) = answers_of([5, 6], question)
    assert answer.reference is not None
    assert answer.reference.logprobs == [-0.25, -0.25]
    assert (answer.reference.log_ratio, answer.reference.reward) == (-0.5, pytest.approx(-0.05))


def test_a_whole_policy_answers_when_what_it_started_from_is_deleted(tiny: Backend) -> None:
    add_dataset(tiny)
    first = finished(tiny, submit(tiny, sft="skip").id)
    whole = finished(tiny, submit(tiny, base_model=first, sft="skip").id)
    adapter = finished(tiny, submit(tiny, base_model=first, sft="skip", lora={"rank": 4}).id)
    jobs.delete(tiny, PROJECT, first)
    model = served_models.find(tiny, PROJECT, whole)
    assert (model.job_id, model.base_tree, model.root_name) == (whole, None, BASE_MODEL)
    assert prepared(tiny, model=whole).prompt_ids
    with pytest.raises(ModelNotFound, match="started from"):
        prepared(tiny, model=whole, has_reference=True)
    with pytest.raises(ModelNotFound, match=first):
        served_models.find(tiny, PROJECT, adapter)


def finished(backend: Backend, job_id: str) -> str:
    held = claim(backend)
    lifecycle.finish_succeeded(held, publication(backend, held))
    return job_id


def test_names_that_mean_nothing_are_refused(tiny: Backend) -> None:
    add_dataset(tiny)
    running = submit(tiny).id
    for name in ("nosuch", "job_1", "job_1@sft", running, f"{running}@sft", "ft:a:b", "../etc"):
        with pytest.raises(ModelNotFound) as refused:
            served_models.find(tiny, PROJECT, name)
        assert refused.value.errors[0].pointer == "/model"
    with pytest.raises(ModelNotFound):
        served_models.find(tiny, "another", running)


def test_the_sft_policy_of_a_job_is_served(tiny: Backend) -> None:
    add_dataset(tiny)
    job_id = submit(tiny).id
    held = claim(tiny)
    made = publication(tiny, held)
    lifecycle.finish_succeeded(held, made)
    with pytest.raises(ModelNotFound, match="not kept"):
        served_models.find(tiny, PROJECT, f"{job_id}@sft")
    tiny.store.put_bytes(made.tree.prefix + "evaluation.json", json.dumps({"sft_digest": "0" * 64}).encode())
    with pytest.raises(ModelNotFound, match="not kept"):
        served_models.find(tiny, PROJECT, f"{job_id}@sft")
