"""Generation, one token after another: greedy, or sampled with a seed."""

from collections.abc import Collection, Sequence

import torch
from transformers import PreTrainedModel

from core.training.model.capabilities import capabilities_of, stock_attention


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    eos_ids: Collection[int],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    keeps_end: bool = False,
) -> list[int]:
    """Return the new tokens after a prompt, without the end token unless `keeps_end`.

    Args:
        temperature: 0 takes the most likely token, otherwise tokens are drawn from softmax(logits / temperature).
        seed: of the draw; the same arguments give the same tokens.

    Raises:
        ValueError: an empty prompt: a causal LM predicts nothing before the first token.
    """
    if not prompt_ids:
        raise ValueError("the prompt has no token to continue from")
    generator = torch.Generator().manual_seed(seed)
    generated: list[int] = []
    inputs = torch.tensor([list(prompt_ids)], device=model.device)
    cache = None
    has_cache = capabilities_of(model).has_cache
    with stock_attention(model):
        for _ in range(max_new_tokens):
            if has_cache:
                output = model(input_ids=inputs, past_key_values=cache, use_cache=True)
            else:
                output = model(input_ids=inputs, use_cache=False)
            logits = output.logits[0, -1].float().cpu()
            if temperature > 0:
                token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
            else:
                token = int(logits.argmax())
            is_end = token in eos_ids
            if not is_end or keeps_end:
                generated.append(token)
            if is_end:
                break
            following = torch.tensor([[token]], device=model.device)
            if has_cache:
                cache, inputs = output.past_key_values, following
            else:
                inputs = torch.cat((inputs, following), dim=1)
    return generated
