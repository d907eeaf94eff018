"""Win rates of a policy at a temperature: against the SFT policy, the data's chosen responses, and the reviews.

The ground truth judges, and where the operator has configured one (`PREFTUNE_JUDGE_URL`, `PREFTUNE_JUDGE_MODEL`), a
language model behind an OpenAI-compatible address, through the service's judgements.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontier.evaluation import Evaluator, win_rate
from frontier.policies import Policy
from frontier.service import Service

SEEDS = {"policy": 0, "reference": 1}
"""Of what both draw."""
JUDGED_PAIRS = 64
"""Openings of each contest that a language model judges, in both orders."""
JUDGED_OPPONENTS = ("reference", "chosen")
CRITERIA = (
    "Each answer continues the opening of a film review. Which continuation makes the review more positive about the "
    "film, and still reads as a review? Length alone makes no answer better."
)


def judging_model() -> str | None:
    """Return the language model that the operator has configured as a judge; None without one."""
    return os.environ.get("PREFTUNE_JUDGE_MODEL") if os.environ.get("PREFTUNE_JUDGE_URL") else None


@dataclass(frozen=True, kw_only=True)
class Contests:
    """Openings, and what stands against a policy's continuations of them."""

    evaluator: Evaluator
    reference: Policy
    openings: Sequence[str]
    chosen: Sequence[str | None]
    """Of pairs drawn and labelled as the data's; None where an opening has none."""
    reviews: Sequence[str]
    max_new_tokens: int

    def texts(self, policy: Policy, temperature: float) -> dict[str, Sequence[str | None]]:
        """Return the continuations by who has written them."""
        drawn = {"policy": policy, "reference": self.reference}
        texts: dict[str, Sequence[str | None]] = {
            name: [sample.text for sample in model.sample(
                self.openings, temperature=temperature, seed=SEEDS[name], max_new_tokens=self.max_new_tokens
            )]
            for name, model in drawn.items()
        }  # fmt: skip
        return texts | {"chosen": self.chosen, "reviews": self.reviews}

    def by_reward(self, policy: Policy, temperature: float) -> dict[str, Any]:
        """Return the win rates with the ground truth as judge."""
        texts = self.texts(policy, temperature)
        found: dict[str, Any] = {"temperature": temperature}
        for opponent in ("reference", "chosen", "reviews"):
            rewards = [
                tuple(self.evaluator.reward(opening + text) for text in (mine, theirs))
                for opening, mine, theirs in self._contests(texts, opponent)
            ]
            mine, theirs = ([both[place] for both in rewards] for place in (0, 1))
            rate = asdict(win_rate(mine, theirs)) if rewards else None
            found[f"against_{opponent}"] = rate and rate | {"num_openings": len(rewards)}
        return found

    def by_model(self, policy: Policy, temperature: float, service: Service, name: str) -> dict[str, Any]:
        """Return the win rates with the operator's language model as judge."""
        texts = self.texts(policy, temperature)
        found: dict[str, Any] = {"temperature": temperature}
        for opponent in JUDGED_OPPONENTS:
            contests = self._contests(texts, opponent)[:JUDGED_PAIRS]
            rows = [
                {"prompt": opening, "response": text, "model": model}
                for opening, mine, theirs in contests
                for model, text in ((name, mine), (opponent, theirs))
            ]
            judge = {"kind": "model", "criteria": CRITERIA}
            label = f"{name}-{temperature:g}-{opponent}"
            judged = service.judge(label, rows, [name, opponent], judge) if rows else None
            kept = ("num_pairs", "num_failed", "num_ties", "faults", "position")
            found[f"against_{opponent}"] = judged and judged["win_rate"] and (
                judged["win_rate"] | {"num_openings": judged["num_prompts"]} | {key: judged[key] for key in kept}
            )  # fmt: skip
        return found

    def _contests(self, texts: dict[str, Sequence[str | None]], opponent: str) -> list[tuple[str, str, str]]:
        """Return opening, the policy's continuation and the opponent's, where there are both."""
        together = zip(self.openings, texts["policy"], texts[opponent], strict=True)
        return [(opening, mine, theirs) for opening, mine, theirs in together if None not in (mine, theirs)]
