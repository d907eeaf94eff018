"""KL to the reference on the policy's own answers: 0 for the same model, by hand for another; seeds are fixed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import make_model
from tiny_runs import World
from transformers import PreTrainedModel

from core.training.measures.policy_kl import describe_drift, draw_answer, responses_in_memory, score_answers
from core.training.model.capabilities import stock_attention
from core.training.plan import TrainingPlan


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    world = World.make(Path(tmp_path_factory.mktemp("drift")))
    return dataclasses.replace(world.plan("run"), sample_prompts=((5, 6, 7), (8, 9)), max_new_tokens=6)


def other_model() -> PreTrainedModel:
    model = make_model("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.5)
    return model


@torch.no_grad()
def log_probability(model: PreTrainedModel, prompt: tuple[int, ...], answer: list[int]) -> float:
    """By transformers' own attention."""
    ids = torch.tensor([[*prompt, *answer]])
    with stock_attention(model):
        logps = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return sum(float(logps[len(prompt) - 1 + n, token]) for n, token in enumerate(answer))


def test_the_divergence_is_the_mean_log_ratio_of_the_policys_answers(plan: TrainingPlan) -> None:
    policy, reference = make_model("llama"), other_model()
    drawn = [draw_answer(policy, plan, index) for index in range(2)]
    answers = score_answers(policy, plan, drawn)
    assert answers is not None
    found = describe_drift(reference, answers)
    ratios = [
        log_probability(policy, prompt, answer) - log_probability(reference, prompt, answer)
        for prompt, answer in zip(plan.sample_prompts, drawn, strict=True)
    ]
    assert found["num_answers"] == 2
    assert found["kl"] == pytest.approx(np.mean(ratios), abs=1e-4)
    assert found["kl_per_token"] == pytest.approx(sum(ratios) / sum(map(len, drawn)), abs=1e-5)
    assert found["standard_error"] == pytest.approx(abs(ratios[0] - ratios[1]) / 2, abs=1e-4)
    same = describe_drift(policy, answers)
    assert (same["kl"], same["kl_per_token"]) == (0.0, 0.0)


def test_answers_are_drawn_with_fixed_seeds_of_their_own(plan: TrainingPlan) -> None:
    model = make_model("llama")
    alike = dataclasses.replace(plan, sample_prompts=((5, 6, 7), (5, 6, 7)))
    first, second = (draw_answer(model, alike, index) for index in range(2))
    assert draw_answer(model, alike, 0) == first != second
    assert draw_answer(model, dataclasses.replace(alike, seed=1), 0) != first


def test_without_an_answer_there_is_no_divergence(plan: TrainingPlan) -> None:
    assert score_answers(make_model("llama"), plan, [[], []]) is None
    assert len(responses_in_memory([((1, 2), (3,))])) == 1


def test_an_answer_ends_with_the_token_that_was_drawn(plan: TrainingPlan) -> None:
    """Of several end tokens not the first one for all of them: that would be scored without having been drawn."""
    model = make_model("llama")
    long = dataclasses.replace(plan, eos_token_ids=(), max_new_tokens=2)
    first, second = draw_answer(model, long, 0)
    assert draw_answer(model, dataclasses.replace(long, eos_token_ids=(first + 1, first)), 0) == [first]
    ended_late = dataclasses.replace(long, eos_token_ids=(first + 1, second), max_new_tokens=6)
    if second != first:
        assert draw_answer(model, ended_late, 0) == [first, second]
