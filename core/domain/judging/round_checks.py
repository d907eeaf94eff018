"""Faults of a request for rounds that need no database to be seen."""

from collections.abc import Iterator

from core.domain.dataset_rows import DatasetKind
from core.domain.errors import FieldError, InvalidRequest
from core.domain.jobs.job_spec import JobRequest
from core.domain.jobs.methods import get_method
from core.domain.judging.generations import MAX_ANSWERS, MAX_TOKENS, GenerationSampling
from core.domain.judging.judgements import MAX_PAIRS
from core.domain.judging.pairing import PairingKind
from core.domain.judging.rounds import MEMBER_OF, NUMBER, RoundsRequest
from core.domain.variants.checks import VariantError

_OWN_KEYS = 30
_YES_OR_NO = ("regex", "exact_match", "json_schema")
"""Judges whose scores are 0 or 1."""


def check_request(request: RoundsRequest) -> None:
    """Check what needs no database. Raises InvalidRequest naming every fault."""
    errors = [*_job_faults(request), *_judge_faults(request), *_size_faults(request), *_length_faults(request)]
    if errors:
        raise InvalidRequest("; ".join(f"{error.pointer}: {error.detail}" for error in errors), errors=errors)


def _job_faults(request: RoundsRequest) -> list[FieldError]:
    job, initial, faults = request.job, request.initial, list[FieldError]()
    given = job.model_dump(exclude_unset=True)
    method, pairing = get_method(job.method), request.chosen_pairing
    if not method.publishes_policy:
        faults.append(FieldError("/job/method", "trains no policy that could answer; use preference or supervised"))
    elif pairing.kind is PairingKind.BEST and method.encoded_kind is not DatasetKind.DEMONSTRATION:
        faults.append(FieldError("/pairing/kind", 'best gives no pairs: use it with "method": "supervised"'))
    else:
        faults += _variant_faults(job)
    if method.can_skip_sft and given.get("sft", "skip") != "skip":
        faults.append(FieldError("/job/sft", "a round trains from a policy; put SFT before the first into initial"))
    for name in ("exclude_lines", "swap_lines"):
        if given.get(name):
            faults.append(FieldError(f"/job/{name}", "names lines of a file, and a round trains on its own pairs"))
    for pointer, body in (("/job", job), ("/initial", initial)):
        if body is not None:
            faults += _metadata_faults(pointer, body)
    if initial is not None and not get_method(initial.method).publishes_policy:
        faults.append(FieldError("/initial/method", "trains no policy that could answer"))
    if initial is not None and initial.base_model != job.base_model:
        fault = f"the rounds start from the policy that it trains from {job.base_model}: give the same base_model"
        faults.append(FieldError("/initial/base_model", fault))
    return faults


def _variant_faults(job: JobRequest) -> list[FieldError]:
    try:
        kinds = get_method(job.method).kinds_for(job.variant)
    except VariantError as error:
        return [FieldError("/job/variant", error.message)]
    if DatasetKind.PREFERENCE in kinds:
        return []
    return [FieldError("/job/variant", f"{job.variant} trains on rows of kind {kinds[0].value}; rounds make pairs")]


def _metadata_faults(pointer: str, job: JobRequest) -> list[FieldError]:
    faults = [
        FieldError(f"{pointer}/metadata/{key}", f"the key {key!r} is set by the rounds; choose another name")
        for key in (MEMBER_OF, NUMBER)
        if key in job.metadata
    ]
    if len(job.metadata) > _OWN_KEYS:
        faults.append(FieldError(f"{pointer}/metadata", f"rounds add two keys; give at most {_OWN_KEYS}"))
    return faults


def _judge_faults(request: RoundsRequest) -> list[FieldError]:
    faults = []
    for pointer, judge in (("/judge", request.judge), ("/evaluation/judge", request.evaluation.judge)):
        if judge is not None and judge.kind == "arena":
            faults.append(FieldError(f"{pointer}/kind", "people vote when they like; use another judge for rounds"))
    pairing = request.chosen_pairing
    if request.judge.kind == "model" and pairing.margin:
        faults.append(FieldError("/pairing/margin", "a language model gives verdicts and no scores; leave it out"))
    if request.judge.kind == "model" and pairing.min_score is not None:
        faults.append(FieldError("/pairing/min_score", "a language model gives verdicts and no scores; leave it out"))
    if request.judge.kind in _YES_OR_NO:
        scores = f"scores of a judge of kind {request.judge.kind} are 0 and 1"
        if pairing.margin >= 1:
            faults.append(FieldError("/pairing/margin", f"{scores}, and never differ by more than 1: leave it out"))
        if pairing.min_score is not None and pairing.min_score > 1:
            faults.append(FieldError("/pairing/min_score", f"{scores}: give at most 1"))
    return faults


def _size_faults(request: RoundsRequest) -> list[FieldError]:
    wanted, is_file = request.generation, request.chosen_pairing.kind is PairingKind.FILE
    if wanted.num_samples % 2 and not is_file:
        return [FieldError("/generation/num_samples", "must be even: answers are judged two at a time")]
    num_pairs = wanted.num_prompts * (wanted.num_samples if is_file else wanted.num_samples // 2)
    if num_pairs <= MAX_PAIRS:
        return []
    most = MAX_PAIRS * (1 if is_file else 2) // wanted.num_samples
    fault = (
        f"{wanted.num_prompts:,} prompts × {wanted.num_samples} answers are {num_pairs:,} pairs to judge, and a "
        f"judgement has {MAX_PAIRS:,}: take {most:,} prompts at most, or fewer samples"
    )
    return [FieldError("/generation/num_prompts", fault)]


def _length_faults(request: RoundsRequest) -> Iterator[FieldError]:
    """Yield what a generation of a round, or of its held-out prompts, would be refused for."""
    wanted, evaluation = request.generation, request.evaluation
    yield from _too_many("/generation", wanted.num_prompts, wanted.num_samples, wanted.sampling)
    yield from _too_many("/evaluation", evaluation.num_prompts, 2, evaluation.sampling or wanted.sampling)
    is_imitated = request.pairing is not None and request.pairing.min_score is not None
    if wanted.sampling.temperature == 0 and wanted.num_samples > 1 and not is_imitated:
        fault = "0 gives the same answer each time, and there is nothing to choose from; 1 is usual"
        yield FieldError("/generation/sampling/temperature", fault)


def _too_many(pointer: str, num_prompts: int, per_prompt: int, sampling: GenerationSampling) -> Iterator[FieldError]:
    most, number = min(MAX_ANSWERS, MAX_TOKENS // sampling.max_tokens), num_prompts * per_prompt
    if number > most:
        fault = (
            f"{num_prompts:,} prompts with {per_prompt} answers each are {number:,} answers, and with max_tokens "
            f"{sampling.max_tokens:,} a generation may have {most:,}: take {most // per_prompt:,} prompts at most, or "
            "fewer tokens"
        )
        yield FieldError(f"{pointer}/num_prompts", fault)
