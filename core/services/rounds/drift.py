"""Drift of a policy: its divergence from another one, estimated on its own answers to held-out prompts.

KL(policy || first) is the mean over answers drawn from the policy of log p_policy - log p_first, as jobs measure it
(`core.training.measures.policy_kl`); the log-probabilities are those of `POST /jobs/{id}/scores`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_ANSWERS = 200
"""Answers that are scored in a round."""


def between(policy: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the divergence in nats per answer and per token; None where no answer has both log-probabilities.

    Args:
        policy: scores of the answers by the policy that gave them, with `policy_logp` and `num_tokens`.
        first: scores of the same answers, whose `reference_logp` is that of the other policy.
    """
    ratios, num_tokens = list[float](), 0
    for own, other in zip(policy, first, strict=True):
        high, low = own.get("policy_logp"), other.get("reference_logp")
        if high is not None and low is not None:
            ratios.append(high - low)
            num_tokens += int(own["num_tokens"])
    if not ratios:
        return None
    number = len(ratios)
    mean = math.fsum(ratios) / number
    spread = math.sqrt(math.fsum((ratio - mean) ** 2 for ratio in ratios) / (number - 1)) if number > 1 else None
    return {
        "num_answers": number,
        "kl": mean,
        "standard_error": None if spread is None else spread / math.sqrt(number),
        "kl_per_token": math.fsum(ratios) / num_tokens if num_tokens else None,
    }
