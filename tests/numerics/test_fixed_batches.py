"""Answers in fixed batches: a model's own, each with its own seed, the same every time."""

from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS, VOCAB_SIZE, make_tiny_model
from transformers import PreTrainedModel

from core.training.model.capabilities import stock_attention
from core.training.model.generation import generate
from core.training.model.loading import load_causal_lm
from worker.processes.generation import fixed_batches
from worker.processes.generation.fixed_batches import BatchSampling, FixedBatches, Wanted
from worker.processes.generation.sampling import score

LENGTHS = (3, 17, 17, 40, 9, 1, 17)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return load(tmp_path_factory.mktemp("model"), request.param)


def load(folder: Path, architecture: str = "llama") -> PreTrainedModel:
    loaded = load_causal_lm(str(make_tiny_model(folder, architecture)), dtype=torch.float32, device="cpu")
    loaded.eval()
    return loaded


def wanted() -> list[Wanted]:
    generator = torch.Generator().manual_seed(1)
    prompts = [tuple(torch.randint(3, VOCAB_SIZE, (n,), generator=generator).tolist()) for n in LENGTHS]
    prompts[2] = prompts[1]
    return [Wanted(prompt_ids=prompt, seed=seed) for seed, prompt in enumerate(prompts)]


def sampling(temperature: float, *, end_ids: frozenset[int] = frozenset(), max_tokens: int = 24) -> BatchSampling:
    return BatchSampling(max_tokens=max_tokens, temperature=temperature, top_p=1, end_ids=end_ids)


def test_the_likeliest_tokens_are_those_of_each_prompt_alone(model: PreTrainedModel) -> None:
    ends = frozenset(range(0, VOCAB_SIZE, 9))  # so that answers end at different times, and leave the batch
    batches = FixedBatches(model, sampling(0, end_ids=ends))
    assert batches.is_batched
    answers = batches.answer(wanted())
    for one, answer in zip(wanted(), answers, strict=True):
        assert answer.token_ids == generate(model, one.prompt_ids, 24, ends, keeps_end=True)
        assert answer.is_ended is (answer.token_ids[-1] in ends)
    assert len({len(answer.token_ids) for answer in answers}) > 1


def test_log_probabilities_are_those_of_the_model_itself(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_batches, "READ_TOKENS", 40)  # prompts are read in several parts
    for one, answer in zip(wanted(), FixedBatches(model, sampling(0.7)).answer(wanted()), strict=True):
        with stock_attention(model):
            alone = score(model, list(one.prompt_ids), answer.token_ids)
        assert answer.logprobs == pytest.approx(alone, abs=1e-4)


def test_the_same_batch_gives_the_same_bits_whatever_was_answered_before(tmp_path: Path) -> None:
    model = load(tmp_path)
    batches = FixedBatches(model, sampling(1))
    first = batches.answer(wanted())
    batches.answer([Wanted(prompt_ids=(5, 6, 7), seed=9)] * 3)
    again = batches.answer(wanted())
    afresh = FixedBatches(load(tmp_path), sampling(1)).answer(wanted())
    for other in (again, afresh):
        assert [answer.token_ids for answer in other] == [answer.token_ids for answer in first]
        assert [answer.logprobs for answer in other] == [answer.logprobs for answer in first]
    assert first[1].token_ids != first[2].token_ids  # one prompt, two seeds


def test_batches_keep_to_the_room_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = FixedBatches(load(tmp_path), sampling(1, max_tokens=8))
    whole = batches.answer(wanted())
    sizes: list[int] = []
    together, alone = batches._together, batches._alone
    monkeypatch.setattr(
        batches, "_together", lambda batch, sampled: sizes.append(len(batch)) or together(batch, sampled)
    )
    monkeypatch.setattr(batches, "_alone", lambda one: sizes.append(1) or alone(one))
    monkeypatch.setattr(fixed_batches, "MAX_BATCH_TOKENS", 60)
    answers = batches.answer(wanted())
    assert sizes == [2, 1, 1, 2, 1]
    assert [len(answer.token_ids) for answer in answers] == [len(answer.token_ids) for answer in whole]


def test_a_model_that_batches_change_is_answered_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fixed_batches, "score", lambda *_: [0.0] * 4)
        batches = FixedBatches(model, sampling(0))
    assert not batches.is_batched
    for one, answer in zip(wanted(), batches.answer(wanted()), strict=True):
        assert answer.token_ids == generate(model, one.prompt_ids, 24, (), keeps_end=True)


@pytest.mark.parametrize(("first", "others", "is_batched"), [(0.6, 0.0, True), (0.6, 0.6, False)])
def test_in_16_bits_rounding_moves_single_tokens_and_a_fault_moves_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: float, others: float, is_batched: bool
) -> None:
    def moved(model: PreTrainedModel, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        head, *rest = score(model, prompt_ids, response_ids)
        return [head + first, *(value + others for value in rest)]

    monkeypatch.setattr(fixed_batches, "score", moved)
    assert FixedBatches(load(tmp_path).to(torch.bfloat16), sampling(0)).is_batched is is_batched
