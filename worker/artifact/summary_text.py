"""Figures of a run's summary as text, for model card and report."""

from collections.abc import Mapping
from typing import Any

from core.domain.jobs.methods import method_of

_BASELINES = {
    "before_dpo_likelihood": "the policy before DPO: the likelier response",
    "before_dpo_likelihood_per_token": "the policy before DPO: the likelier response, per token",
    "longer_wins": "the longer response wins",
}


def interval_text(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


RESULT_NAMES = {
    "reward_accuracy": "reward accuracy",
    "reward_margin": "reward margin",
    "loss": "loss",
    "perplexity": "perplexity",
    "token_accuracy": "token accuracy",
}


def result_rows(results: Mapping[str, Any] | None) -> dict[str, str]:
    """Held-out figures with their intervals, and training means named as such."""
    if not results:
        return {}
    rows: dict[str, str] = {}
    if held_out := results.get("held_out"):
        rows |= _held_out_rows(held_out, "held-out {label} ({num_rows} rows)")
    if base := results.get("base_model"):
        rows |= _held_out_rows(base, "the base model's {label} on them")
    if better := results.get("better_than_base_model"):
        rows |= _held_out_rows(better, "{label}: better than the base model by")
    if calibration := (results.get("held_out") or {}).get("calibration"):
        rows["held-out calibration error"] = _share_text(calibration["error"])
    if training := results.get("training"):
        which = f"epoch {training['epoch']}" if training["is_whole_epoch"] else "the part of epoch 1 that was trained"
        for name, label in RESULT_NAMES.items():
            if training.get(name) is not None:
                rows[f"training {label}, mean over {which}"] = f"{training[name]:.4g}"
    return rows


def _share_text(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _held_out_rows(figures: Mapping[str, Any], label: str) -> dict[str, str]:
    known = {name: text for name, text in RESULT_NAMES.items() if figures.get(name)}
    num_rows = figures.get("num_rows")
    return {label.format(label=text, num_rows=num_rows): _figure_text(figures[name]) for name, text in known.items()}


def _figure_text(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "not finite"
    interval = f" ({figure['low']:.4g} to {figure['high']:.4g})" if figure["low"] is not None else ""
    return f"{figure['value']:.4g}{interval}"


def baseline_rows(held_out: Mapping[str, Any]) -> dict[str, str]:
    """Return each baseline's score, and by how much the policy is better."""
    rows = {}
    for name, label in _BASELINES.items():
        if name in held_out["baselines"]:
            better = held_out["better_than"][name]
            rows[label] = f"{interval_text(held_out['baselines'][name])}; this model better by {interval_text(better)}"
    return rows


def start_of(spec: Mapping[str, Any]) -> str:
    """Return what people call the policy that the last training stage began with."""
    method = method_of(spec)
    return "base model" if len(method.trained) == 1 else f"policy before {method.last.label}"


def drift_text(drift: Mapping[str, Any] | None, start: str = "policy before DPO") -> str | None:
    """Describe the divergence from the policy that the last training stage began with."""
    if not drift:
        return None
    error = drift["standard_error"]
    spread = f" ± {error:.3g}" if error is not None else ""
    return (
        f"KL(policy || {start}) on {drift['num_answers']} of its own answers: {drift['kl']:.3g}{spread} nats "
        f"an answer, {drift['kl_per_token']:.3g} a token."
    )


def published_text(published: Mapping[str, Any] | None) -> str | None:
    """Describe the published weights beside the policy as it was trained."""
    if not published:
        return None
    parts = []
    if rounding := published.get("rounding"):
        parts.append(
            f"The adapter was added in float32 and published in {rounding['dtype']}, which keeps "
            f"{rounding['share_kept']:.2%} of its update."
        )
    if margins := published.get("margins"):
        parts.append(
            "Mean log-probability of chosen over rejected responses on the rows read back, by plain transformers in "
            f"float32: {margins['published']:.4g} as published, {margins['trained']:.4g} as trained, "
            f"{margins['base']:.4g} for the base model."
        )
    return " ".join(parts) or None


def verification_text(checked: Mapping[str, Any] | None) -> str | None:
    """Describe how the saved files were checked; a policy of an earlier version names no tensors."""
    if not checked:
        return None
    if "max_reward_difference" in checked:
        return (
            f"Before publishing, the saved files were loaded again: on {checked['num_rows']} rows their rewards differ "
            f"from the trained model's by at most {checked['max_reward_difference']:.2g}, one by one as in a padded "
            f"batch. Each of {checked['num_weights_equal']} tensors is exactly what was trained."
        )
    text = (
        f"Before publishing, the saved files were loaded again: on {checked['num_rows']} rows their token "
        f"log-probabilities differ from the trained policy's by at most {checked['max_difference']:.2g} nats, "
        f"{checked['mean_difference']:.2g} on average."
    )
    if "num_weights_equal" in checked:
        text += (
            f" Each of {checked['num_weights_equal']} tensors is exactly what was trained, and a greedy answer of "
            f"{checked['num_answer_tokens']} tokens is the same."
        )
    return text
