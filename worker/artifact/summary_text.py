"""Figures of a run's summary as people read them, for model card and report."""

from collections.abc import Mapping
from typing import Any

_BASELINES = {
    "before_dpo_likelihood": "the policy before DPO: the likelier response",
    "before_dpo_likelihood_per_token": "the policy before DPO: the likelier response, per token",
    "longer_wins": "the longer response wins",
}


def interval_text(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def baseline_rows(held_out: Mapping[str, Any]) -> dict[str, str]:
    """What each baseline scores, and by how much the policy is better."""
    rows = {}
    for name, label in _BASELINES.items():
        if name in held_out["baselines"]:
            better = held_out["better_than"][name]
            rows[label] = f"{interval_text(held_out['baselines'][name])}; policy better by {interval_text(better)}"
    return rows


def drift_text(drift: Mapping[str, Any] | None) -> str | None:
    if not drift:
        return None
    error = drift["standard_error"]
    spread = f" ± {error:.3g}" if error is not None else ""
    return (
        f"KL(policy || policy before DPO) on {drift['num_answers']} of its own answers: {drift['kl']:.3g}{spread} nats "
        f"an answer, {drift['kl_per_token']:.3g} a token."
    )
