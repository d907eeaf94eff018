import pytest
import torch
from packed_rows import VOCABULARY, make_model, make_stock_model

from core.training.model.generation import generate

PROMPT = [5, 6, 7, 8, 9]


def greedy_without_cache(architecture: str, count: int) -> list[int]:
    model, ids = make_stock_model(architecture).eval(), list(PROMPT)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(PROMPT) :]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "gemma2", "mistral", "bloom"])
def test_greedy_takes_the_likeliest_token_each_time(architecture: str) -> None:
    model = make_model(architecture)
    resting = model.config._attn_implementation
    assert generate(model, PROMPT, 12, eos_ids=set()) == greedy_without_cache(architecture, 12)
    assert model.config._attn_implementation == resting, "packed attention is put back"


def test_generation_ends_before_an_end_token() -> None:
    model = make_model("llama")
    whole = generate(model, PROMPT, 12, eos_ids=set())
    stop = whole[4]
    assert generate(model, PROMPT, 12, eos_ids={stop}) == whole[: whole.index(stop)]


def test_a_draw_is_repeated_by_its_seed() -> None:
    model = make_model("llama")
    state = torch.get_rng_state()
    draws = [generate(model, PROMPT, 20, set(), temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert all(0 <= token < VOCABULARY for token in draws[2])
    assert torch.equal(torch.get_rng_state(), state), "the training's random numbers are left alone"


def test_a_low_temperature_is_nearly_greedy() -> None:
    model = make_model("llama")
    assert generate(model, PROMPT, 12, set(), temperature=1e-4) == generate(model, PROMPT, 12, set())


def test_nothing_follows_an_empty_prompt() -> None:
    with pytest.raises(ValueError, match="prompt"):
        generate(make_model("llama"), [], 3, set())
