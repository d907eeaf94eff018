"""Rounds: a policy answers, a judge judges, and the policy is trained on that, several times; how they are asked for.

A round is a row of stages, each an ordinary generation, judgement, dataset or job. `plan_round` says which a round has.
"""

import copy
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, ValidationError, model_validator

from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest
from core.domain.jobs.job_spec import JobRequest, Metadata, Name, Payload
from core.domain.jobs.methods import get_method
from core.domain.json_numbers import MAX_WHOLE, REAL, WHOLE
from core.domain.judging.generations import MAX_PROMPTS, GenerationSampling
from core.domain.judging.judgements import MAX_PAIRS, Judge
from core.domain.judging.pairing import MAX_PAIRS_PER_PROMPT, PairingKind, PairingRule

MAX_ROUNDS = 50
MAX_SAMPLES = 16
MEMBER_OF, NUMBER = "rounds", "round"
"""Keys of the metadata of all that rounds make: their id, and the number of the round."""
_MAX_SEED = 2**31
_DEFAULT_PER_PROMPT = 8

ReferencePolicy = Literal["start", "first"]


class RoundsStatus(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FAILED = "failed"
    """A stage has failed; `resume` tries it again."""
    FINISHED = "finished"


class RoundsStopReason(StrEnum):
    """Why rounds have finished."""

    ALL_ROUNDS = "all_rounds"
    NO_IMPROVEMENT = "no_improvement"
    """The interval of the newest policy's win rate against the one before holds 0.5, or is below it."""
    NO_PAIRS = "no_pairs"
    """The judge found no answer better than another: there is nothing to learn."""


class RoundStage(StrEnum):
    """What is done in a round, in order; those of round 0 come once, before the first."""

    SPLIT = "split"
    """Prompts are held out of the file (round 0)."""
    INITIAL = "initial"
    """The first policy is trained (round 0)."""
    GENERATE = "generate"
    """The round's first policy answers."""
    MATCH = "match"
    """Its answers are set beside the file's own."""
    JUDGE = "judge"
    PAIR = "pair"
    """Pairs are made of the judged answers."""
    MIX = "mix"
    """Pairs of earlier rounds, or rows of the file, are added."""
    TRAIN = "train"
    ANSWER = "answer"
    """The new policy answers the held-out prompts."""
    GATHER = "gather"
    """Its answers are set beside those of earlier policies."""
    COMPARE = "compare"
    """Win rate against the policy of the round before."""
    COMPARE_FIRST = "compare_first"
    """Win rate against the first policy; in the first round `compare` is that."""
    DRIFT = "drift"
    """Its answers are scored by the new policy."""
    DRIFT_FIRST = "drift_first"
    """The same answers are scored by the first policy."""


class RoundStepStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """The round has ended before it: there was nothing to learn."""


class RoundChild(StrEnum):
    """What a stage is done by."""

    DATASET = "dataset"
    GENERATION = "generation"
    JUDGEMENT = "judgement"
    JOB = "job"
    SCORES = "scores"


CHILD_OF: dict[RoundStage, RoundChild] = {
    RoundStage.SPLIT: RoundChild.DATASET,
    RoundStage.INITIAL: RoundChild.JOB,
    RoundStage.GENERATE: RoundChild.GENERATION,
    RoundStage.MATCH: RoundChild.DATASET,
    RoundStage.JUDGE: RoundChild.JUDGEMENT,
    RoundStage.PAIR: RoundChild.DATASET,
    RoundStage.MIX: RoundChild.DATASET,
    RoundStage.TRAIN: RoundChild.JOB,
    RoundStage.ANSWER: RoundChild.GENERATION,
    RoundStage.GATHER: RoundChild.DATASET,
    RoundStage.COMPARE: RoundChild.JUDGEMENT,
    RoundStage.COMPARE_FIRST: RoundChild.JUDGEMENT,
    RoundStage.DRIFT: RoundChild.SCORES,
    RoundStage.DRIFT_FIRST: RoundChild.SCORES,
}
OPTIONAL_STAGES = frozenset({RoundStage.DRIFT, RoundStage.DRIFT_FIRST})
"""Stages that only measure: where one fails, the round goes on without its figure."""
ID_PREFIX = {
    RoundChild.DATASET: "ds",
    RoundChild.GENERATION: "gen",
    RoundChild.JUDGEMENT: "judge",
    RoundChild.JOB: "job",
    RoundChild.SCORES: "score",
}


class RoundGeneration(Payload):
    """What the policy answers in each round."""

    num_prompts: Annotated[int, Field(ge=1, le=MAX_PROMPTS), WHOLE] = Field(
        256, description="Prompts of each round, drawn anew from those that are not held out."
    )
    num_samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES), WHOLE] = Field(
        4, description="Answers to each prompt; an even number, but with the pairing `file`."
    )
    sampling: GenerationSampling = Field(
        default_factory=GenerationSampling,
        description="Length, temperature and seed; each round has a seed of its own.",
    )


class Pairing(Payload):
    """Which pairs are made of the judged answers."""

    kind: PairingKind = Field(
        PairingKind.BEST_WORST,
        description="`best_worst`: of each prompt the best answer against the worst; `all`: every two that differ by "
        "more than `margin`; `file`: each answer against the file's chosen response, as the judge finds; `best`: the "
        "best answer alone, for jobs of the method supervised (rejection sampling).",
    )
    margin: Annotated[float, Field(ge=0, le=MAX_WHOLE), REAL] = Field(
        0.0, description="Scores of the judge must differ by more; 0 of a language model, which gives none."
    )
    max_pairs_per_prompt: Annotated[int, Field(ge=1, le=MAX_PAIRS_PER_PROMPT), WHOLE] | None = Field(
        None, description="`all` and `file`: the clearest so many; null: 8."
    )
    min_score: Annotated[float, Field(ge=-MAX_WHOLE, le=MAX_WHOLE), REAL] | None = Field(
        None,
        description="`best`: the least score of an answer that is imitated; null: it must be better than another one.",
    )

    @model_validator(mode="after")
    def _own_settings_only(self) -> "Pairing":
        if self.max_pairs_per_prompt is not None and self.kind not in (PairingKind.ALL, PairingKind.FILE):
            raise ValueError("max_pairs_per_prompt goes with the kinds all and file")
        if self.min_score is not None and self.kind is not PairingKind.BEST:
            raise ValueError("min_score goes with the kind best")
        return self

    def rule(self) -> PairingRule:
        per_prompt = self.max_pairs_per_prompt or _DEFAULT_PER_PROMPT
        return PairingRule(kind=self.kind, margin=self.margin, max_per_prompt=per_prompt, min_score=self.min_score)


class RoundEvaluation(Payload):
    """How the policy of each round is compared with the one before and with the first."""

    dataset_id: Name | None = Field(
        None, description="Its prompts are held out; null: a part of the job's own dataset, which nothing trains on."
    )
    held_out_fraction: Annotated[float, Field(gt=0, le=0.5), REAL] = Field(
        0.1, description="Share of the prompts of the job's dataset that is held out, where no `dataset_id` is given."
    )
    num_prompts: Annotated[int, Field(ge=2, le=MAX_PAIRS), WHOLE] = Field(
        200, description="How many of them are answered at most; the same in every round."
    )
    judge: Judge | None = Field(None, description="Who compares; null: the judge of the rounds.")
    sampling: GenerationSampling | None = Field(None, description="How it is answered; null: as in the rounds.")


class RoundsRequest(Payload):
    """The body of `POST /rounds`."""

    job: JobRequest = Field(
        description="What every round trains: a body of `POST /jobs`. `base_model` is where the rounds start, and the "
        "prompts are those of `dataset_id`; each round trains from the policy of the one before on its own pairs."
    )
    initial: JobRequest | None = Field(
        None,
        description="A job that trains the first policy, before the first round; supervised on the file, for "
        "instance. What is held out, it does not see.",
    )
    judge: Judge = Field(description="Who finds answers better: a rule, rewards, or a language model.")
    num_rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS), WHOLE] = Field(3, description="Rounds at most.")
    generation: RoundGeneration = Field(
        default_factory=RoundGeneration, description="What is answered in each round, and how often."
    )
    pairing: Pairing | None = Field(
        None, description="Which pairs are made; null: best_worst, with the method supervised best."
    )
    reference: ReferencePolicy = Field(
        "start",
        description="start: a round trains from the policy of the one before, which is its reference. first: every "
        "round trains from the first policy, with that as the reference, on the pairs of all rounds so far.",
    )
    file_ratio: Annotated[float, Field(ge=0, le=10), REAL] = Field(
        0.0, description="Rows of the file that are mixed in for each row of the round; 1 is as many."
    )
    evaluation: RoundEvaluation = Field(
        default_factory=RoundEvaluation, description="Held-out prompts and who compares the answers to them."
    )
    stop_early: StrictBool = Field(
        True,
        description="End once a round's policy is no better than the one before: the interval of its win rate holds "
        "0.5, or is below it.",
    )
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE), WHOLE] = Field(
        0, description="Seed of the split and of every draw of prompts and rows."
    )
    name: Name | None = Field(None, description="A name to recognise them by, and all that they make.")
    metadata: Metadata = Field(default_factory=dict, description="Strings of yours.")

    @property
    def chosen_pairing(self) -> Pairing:
        if self.pairing is not None:
            return self.pairing
        is_supervised = get_method(self.job.method).encoded_kind is DatasetKind.DEMONSTRATION
        return Pairing(kind=PairingKind.BEST if is_supervised else PairingKind.BEST_WORST)

    @property
    def comparing_judge(self) -> Judge:
        return self.evaluation.judge or self.judge


class RoundsExtension(Payload):
    """The body of `POST /rounds/{id}/extend`."""

    num_rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS), WHOLE] = Field(
        description="Rounds at most, those that are done among them."
    )


def plan_start(request: RoundsRequest) -> list[RoundStage]:
    """Return the stages before the first round."""
    split = [] if request.evaluation.dataset_id is not None else [RoundStage.SPLIT]
    return split + ([] if request.initial is None else [RoundStage.INITIAL])


def plan_round(request: RoundsRequest, *, has_earlier: bool) -> list[RoundStage]:
    """Return the stages of a round, in order; `has_earlier`: an earlier round has trained a policy."""
    has_mix = request.file_ratio > 0 or (request.reference == "first" and has_earlier)
    has_drift = get_method(request.job.method).has_rewards
    wanted = {
        RoundStage.GENERATE: True,
        RoundStage.MATCH: request.chosen_pairing.kind is PairingKind.FILE,
        RoundStage.JUDGE: True,
        RoundStage.PAIR: True,
        RoundStage.MIX: has_mix,
        RoundStage.TRAIN: True,
        RoundStage.ANSWER: True,
        RoundStage.GATHER: has_earlier,
        RoundStage.COMPARE: True,
        RoundStage.COMPARE_FIRST: has_earlier,
        RoundStage.DRIFT: has_drift,
        RoundStage.DRIFT_FIRST: has_drift and has_earlier and request.reference == "start",
    }
    return [stage for stage, is_wanted in wanted.items() if is_wanted]


def sampling_of(request: RoundsRequest, number: int) -> GenerationSampling:
    """Return how the policy answers in a round: with a seed of that round."""
    sampling = request.generation.sampling
    return sampling.model_copy(update={"seed": (sampling.seed + 1_000_003 * number) % _MAX_SEED})


def round_job(job: JobRequest, number: int, *, base_model: str, dataset_id: str, rounds_id: str) -> JobRequest:
    """Return the job of a round, or of number 0 the initial one. Raises InvalidRequest where it is not valid."""
    values: dict[str, Any] = copy.deepcopy(job.model_dump(mode="json", exclude_unset=True))
    values |= {"base_model": base_model, "dataset_id": dataset_id}
    values.pop("dataset_version", None)
    if number and get_method(job.method).can_skip_sft:
        values["sft"] = "skip"
    values["metadata"] = {**job.metadata, MEMBER_OF: rounds_id, NUMBER: str(number)}
    try:
        return JobRequest.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(f"The job is not valid any more: {error.errors()[0]['msg']}.") from None
