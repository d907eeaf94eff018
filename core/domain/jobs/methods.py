"""Methods of training: which stages a job goes through, and which settings have a meaning for it.

A method is a row here and a function of `core.training.methods`, which a test compares; nothing else names one.
Standard library only: the engine reads it too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.domain.dataset_rows import DatasetKind
from core.domain.errors import FieldError
from core.domain.jobs.job_state import Stage
from core.domain.variants.checks import get_variant

MethodName = Literal["preference", "supervised", "reward"]
DEFAULT: MethodName = "preference"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train, as the sequence of its stages."""

    name: MethodName
    title: str
    summary: str
    """One sentence on what the job does."""
    product: str
    """What it publishes, in a model card's words."""
    stages: tuple[Stage, ...]
    """Stages as users see them, in order."""
    trained: tuple[Stage, ...]
    """Stages that train, with their settings under the stage's name; the policy of the last is published."""
    dataset_kinds: tuple[DatasetKind, ...] = ()
    """Kinds of datasets it takes; none: the kind that the variant trains on."""
    encoded_kind: DatasetKind | None = None
    """Kind that its rows are turned into before they are tokenised; None: they stay what they are."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """Settings without a meaning for it, and why: refused where they are given, and not part of a spec."""
    watched: tuple[str, ...]
    """Validation metrics that early stopping, `keep_best` and sweeps may watch."""
    compared_by: str
    """The one by which a sweep chooses its best member unless told otherwise."""
    can_skip_sft: bool = True
    has_rewards: bool = True
    """Whether what it publishes gives responses a reward, and its pairs are reported on."""
    publishes_policy: bool = True
    """Whether it publishes a language model, which answers; else a reward model, which gives a text one number."""

    @property
    def last(self) -> Stage:
        """The stage whose weights are published."""
        return self.trained[-1]

    def has(self, stage: Stage | str) -> bool:
        return stage in self.stages

    def kinds_for(self, variant: str) -> tuple[DatasetKind, ...]:
        """Return the kinds of datasets that a job with this variant takes."""
        return self.dataset_kinds or (DatasetKind(get_variant(variant).data),)

    def encoded_kind_for(self, variant: str) -> DatasetKind:
        """Return the kind of the tokenised rows."""
        return self.encoded_kind or DatasetKind(get_variant(variant).data)


_NO_PREFERENCES = "a supervised job compares no responses"
_NO_REWARD_STAGE = {"reward": "its settings are those of the stage that trains a reward model"}
_NO_PREFERENCE_LOSS = "a reward model is trained by eq. 2 of arXiv:2305.18290 alone"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="preference",
            title="Preference tuning",
            summary="SFT on the chosen responses, then DPO or another preference loss against the frozen SFT policy.",
            product="A preference-tuned policy",
            stages=(
                Stage.STAGING,
                Stage.SFT,
                Stage.REFERENCE,
                Stage.DPO,
                Stage.EVALUATION,
                Stage.PUBLISHING,
            ),
            trained=(Stage.SFT, Stage.DPO),
            unused=_NO_REWARD_STAGE,
            watched=("loss", "rewards/accuracies", "rewards/margins"),
            compared_by="rewards/accuracies",
        ),
        Method(
            name="supervised",
            title="Supervised fine-tuning",
            summary="SFT alone: the policy learns to give the dataset's responses (of pairs the chosen ones, of marked "
            "responses the good ones).",
            product="A policy fine-tuned on demonstrations",
            stages=(Stage.STAGING, Stage.SFT, Stage.EVALUATION, Stage.PUBLISHING),
            trained=(Stage.SFT,),
            dataset_kinds=tuple(DatasetKind),
            encoded_kind=DatasetKind.DEMONSTRATION,
            unused={
                "variant": "a supervised job has no preference loss",
                "beta": "a supervised job has no reference model",
                "variant_options": "a supervised job has no preference loss",
                "dpo": 'a supervised job has no preference stage; its settings stand in "sft"',
                "score_training_pairs": _NO_PREFERENCES,
                "sft/dataset_id": 'a supervised job trains on "dataset_id"',
                **_NO_REWARD_STAGE,
            },
            watched=("loss", "mean_token_accuracy"),
            compared_by="mean_token_accuracy",
            can_skip_sft=False,
            has_rewards=False,
        ),
        Method(
            name="reward",
            title="Reward model",
            summary="A model with one number for an output, trained on pairs so that the chosen response gets the "
            "larger one (Bradley and Terry).",
            product="A reward model, trained on preference pairs",
            stages=(Stage.STAGING, Stage.REWARD, Stage.EVALUATION, Stage.PUBLISHING),
            trained=(Stage.REWARD,),
            dataset_kinds=(DatasetKind.PREFERENCE,),
            encoded_kind=DatasetKind.PREFERENCE,
            unused={
                "variant": _NO_PREFERENCE_LOSS,
                "beta": "a reward model has no reference model",
                "variant_options": _NO_PREFERENCE_LOSS,
                "sft": "a reward model has no SFT stage; name a policy as its base_model to start from one",
                "dpo": 'a reward model has no preference stage; its settings stand in "reward"',
                "sample_prompts": "a reward model answers nothing",
            },
            watched=("loss", "rewards/accuracies", "rewards/margins"),
            compared_by="rewards/accuracies",
            publishes_policy=False,
        ),
    )
}


def get_method(name: str) -> Method:
    """Return the method of a valid name."""
    return METHODS[name]


def method_of(spec: Mapping[str, Any]) -> Method:
    """Return the method of a stored spec; those of the first release name none."""
    return METHODS[spec.get("method", DEFAULT)]


def refused_settings(method: Method, given: Mapping[str, Any]) -> Iterator[FieldError]:
    """Yield a fault for every setting that was given and has no meaning for the method.

    Args:
        given: the request as it was sent, nested settings included.
    """
    for place, reason in method.unused.items():
        if _is_given(given, place):
            yield FieldError(f"/{place}", f"has no meaning with the method {method.name}: {reason}")
    if given.get("sft") == "skip" and not method.can_skip_sft:
        yield FieldError("/sft", f"cannot be skipped with the method {method.name}, which is SFT alone")
    stopping = given.get("early_stopping")
    watched = {
        "/early_stopping/metric": stopping.get("metric") if isinstance(stopping, Mapping) else None,
        "/keep_best": given.get("keep_best"),
    }
    for pointer, metric in watched.items():
        if metric is not None and metric not in method.watched:
            choice = " or ".join(method.watched)
            yield FieldError(pointer, f"{metric} is not measured with the method {method.name}; use {choice}")


def without_unused(method: Method, form: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec's JSON without settings that have no meaning for the method."""
    kept = {name: value for name, value in form.items() if name not in method.unused}
    for place in method.unused:
        block, _, name = place.partition("/")
        if name and isinstance(kept.get(block), Mapping):
            kept[block] = {key: value for key, value in kept[block].items() if key != name}
    return kept


def _is_given(given: Mapping[str, Any], place: str) -> bool:
    value: Any = given
    for name in place.split("/"):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True
