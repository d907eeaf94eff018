"""A whole run, from a plan to a policy: the stages of its method, such as sft ► reference ► dpo ► evaluation.

Everything is local, and everything random is derived from the plan's seed. A run that was stopped at any boundary and
resumed from the checkpoint of that boundary ends with the same bytes as one that was not.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from core.training.failure_mapping import failures_named
from core.training.measures.policy_kl import describe_drift, score_answers
from core.training.methods.registry import METHODS
from core.training.model.policies import ADAPTER_DIR, load_policy
from core.training.observer import JsonValue, Observer, Sample, Stage
from core.training.plan import TrainingPlan
from core.training.ranks import ALONE, Ranks
from core.training.stages.context import RunContext, open_run
from core.training.stages.outcome import SavedPolicy, TrainedPolicy
from core.training.stages.publication import read_back, save_policy
from core.training.steps.figures import Figures


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Results that a run leaves behind."""

    policy_dir: Path
    """For `AutoModelForCausalLM.from_pretrained`; with LoRA the merged weights. No tokenizer."""
    adapter_dir: Path | None
    """Folder of the LoRA adapter, in peft's format, inside `policy_dir`."""
    stage: Stage
    """The stage whose policy it is: the method's last, or an earlier one when the observer asked to save before."""
    step: int
    """Updates of that stage."""
    evaluation: Figures = field(default_factory=dict)
    """Figures of all validation rows under the final policy; empty without validation rows."""
    num_validation_pairs: int = 0
    samples: tuple[Sample, ...] = ()
    summary: Mapping[str, JsonValue] = field(default_factory=dict)
    """`held_out`, `drift`, `published`, `verification`: what was measured besides the curves."""
    pairs_file: Path | None = None
    """JSON lines: what became of every pair (`core.training.measures.pair_report`); None in a method without pairs."""
    footprints: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    """Memory of each stage that took steps, as measured before its first one (`core.training.stages.micro_batch`)."""


def run(plan: TrainingPlan, observer: Observer, ranks: Ranks = ALONE) -> TrainingResult:
    """Run this rank's part of a plan to its end, from its checkpoint if it has one.

    Raises:
        TrainingFailure: a typed reason, with a sentence for people.
        TrainingStopped: the observer asked for it.
    """
    with failures_named(torch.device(plan.device)):
        context = open_run(plan, observer, ranks)
        outcome = METHODS[plan.method](context)
        policy, start, facts = outcome.policy, outcome.start, outcome.facts
        artifact = save_policy(context, policy.model)
        result = _result(context, policy, artifact.directory)
        answers = None
        if isinstance(policy, TrainedPolicy):
            answers = score_answers(policy.model, plan, policy.drawn)
        del outcome, policy  # their memory is needed for what is loaded now
        drift = {}
        if answers is not None and start is not None:
            gc.collect()  # hooks of an optimizer hold its model in a circle
            drift = {"drift": describe_drift(load_policy(plan, start, ranks), answers)}
        read = {**read_back(context, artifact), **facts} if ranks.is_leader else {}
        return replace(result, summary={**result.summary, **read, **drift})


def _result(context: RunContext, outcome: TrainedPolicy | SavedPolicy, directory: Path) -> TrainingResult:
    adapter_dir = None if context.plan.lora is None else directory / ADAPTER_DIR
    if isinstance(outcome, SavedPolicy):
        return TrainingResult(
            policy_dir=directory,
            adapter_dir=adapter_dir,
            stage=outcome.stage,
            step=outcome.step,
            footprints=context.footprints,
        )
    return TrainingResult(
        policy_dir=directory,
        adapter_dir=adapter_dir,
        stage=outcome.stage,
        step=outcome.step,
        evaluation=outcome.evaluation,
        num_validation_pairs=0 if context.validation is None else len(context.validation),
        samples=outcome.samples,
        summary=outcome.summary,
        pairs_file=outcome.pairs_file,
        footprints=context.footprints,
    )
