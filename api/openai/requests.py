"""Translation of OpenAI's body of a fine-tuning job to a request of this service; nothing is dropped silently."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from api.http.validation_messages import field_errors
from api.openai.methods import BY_TYPE, MULTIPLIER, Hyperparameters, Method, ServedMethod
from core.domain.errors import FieldError, InvalidRequest
from core.domain.jobs.job_spec import JobRequest, Metadata, MetadataKey, Name, Payload
from core.domain.json_numbers import MAX_WHOLE, WHOLE

_OWN_NAMES = {
    "base_model": "model",
    "dataset_id": "training_file",
    "validation_dataset_id": "validation_file",
    "name": "suffix",
    "tracking/project": "integrations/0/wandb/project",
    "tracking/run_name": "integrations/0/wandb/name",
    "tracking": "integrations/0",
}
"""Fields of a job that OpenAI has another name for."""


class WandbRun(Payload):
    """Where the curves of the job are to go, and under which name."""

    project: Name
    name: Name | None = None
    entity: Name | None = None
    tags: Annotated[list[MetadataKey], Field(max_length=16)] = Field(default_factory=list)


class Integration(Payload):
    type: Literal["wandb"]
    wandb: WandbRun


class FineTuningRequest(BaseModel):
    """The body of `POST /v1/fine_tuning/jobs`. Fields of `POST /jobs` come beside these, as `extra_body` sends them."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: Name
    training_file: Name
    validation_file: Name | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE), WHOLE] | None = None
    suffix: Annotated[str, StringConstraints(max_length=64)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None


def served_method(body: FineTuningRequest) -> ServedMethod:
    """Return the method that was asked for; OpenAI takes a body without one for supervised."""
    return BY_TYPE.get(body.method.type if body.method else "supervised", BY_TYPE["supervised"])


def job_fields(body: FineTuningRequest) -> dict[str, Any]:
    """Return the fields of the job that was asked for; a multiplier of the learning rate is not among them.

    Raises:
        InvalidRequest: something cannot be honoured; each error points into the body.
    """
    errors, served = [*_refused(body)], served_method(body)
    fields: dict[str, Any] = {
        "base_model": body.model,
        "dataset_id": body.training_file,
        "method": served.method,
        **served.fields,
        "validation_dataset_id": body.validation_file,
        "name": body.suffix or None,
        **({} if body.seed is None else {"seed": body.seed}),
        **({} if body.metadata is None else {"metadata": body.metadata}),
        **(body.model_extra or {}),
    }
    _put_tracking(fields, body.integrations or [], errors)
    hyperparameters = _hyperparameters(body)
    for name, place in served.places.items():
        value = getattr(hyperparameters, name)
        if value != "auto":
            _put(fields, place, value, served.pointer(name), errors)
    if errors:
        raise _refusal(errors)
    return {name: value for name, value in fields.items() if value is not None}


def multiplier_of(body: FineTuningRequest) -> float | None:
    value = _hyperparameters(body).learning_rate_multiplier
    return None if value == "auto" else value


def with_learning_rate(served: ServedMethod, fields: dict[str, Any], learning_rate: float) -> dict[str, Any]:
    """Add a learning rate; raises InvalidRequest where the body names one, too."""
    fields, errors = dict(fields), list[FieldError]()
    _put(fields, served.rate, learning_rate, served.pointer(MULTIPLIER), errors)
    if errors:
        raise _refusal(errors)
    return fields


def _hyperparameters(body: FineTuningRequest) -> Hyperparameters:
    """Return those of the method, or the ones beside it that OpenAI has deprecated."""
    if body.method:
        return body.method.hyperparameters
    return body.hyperparameters or Hyperparameters()


def job_request(served: ServedMethod, fields: dict[str, Any]) -> JobRequest:
    """Return the job's request; raises InvalidRequest, with the names of OpenAI's body."""
    try:
        return JobRequest.model_validate(fields)
    except ValidationError as error:
        raise renamed(served, field_errors(error.errors(include_url=False), fields)) from error


def renamed(served: ServedMethod, errors: Iterable[FieldError]) -> InvalidRequest:
    """Return the errors of a job's fields, pointing into OpenAI's body."""
    return _refusal([FieldError(_own_pointer(served, error.pointer), error.detail) for error in errors])


def _own_pointer(served: ServedMethod, pointer: str) -> str:
    for ours, theirs in _OWN_NAMES.items():
        if pointer == f"/{ours}":
            return f"/{theirs}"
    for name, place in {**served.places, MULTIPLIER: served.rate}.items():
        if pointer == f"/{place}":
            return served.pointer(name)
    return pointer


def _refused(body: FineTuningRequest) -> Iterable[FieldError]:
    """What this service cannot honour."""
    kind = body.method.type if body.method else "supervised"
    if kind not in BY_TYPE:
        yield FieldError("/method/type", f"{kind} is not a method of this service; it takes {' and '.join(BY_TYPE)}")
    for other in ("dpo", "supervised", "reinforcement"):
        if body.method and kind != other and getattr(body.method, other) is not None:
            yield FieldError(f"/method/{other}", f"belongs to another method than {kind}")
    if body.method and body.hyperparameters:
        yield FieldError("/hyperparameters", f"belongs to jobs without a method; send method.{kind}.hyperparameters")
    known = JobRequest.model_fields.keys() - _OWN_NAMES.keys() | {"tracking"}
    for name in body.model_extra or {}:
        if name not in known:
            hint = f"; its name here is `{_OWN_NAMES[name]}`" if name in _OWN_NAMES else "; check its spelling"
            yield FieldError(f"/{name.replace('~', '~0').replace('/', '~1')}", f"is an unknown field{hint}")


def _put_tracking(fields: dict[str, Any], integrations: list[Integration], errors: list[FieldError]) -> None:
    """Map the one integration that there can be, W&B, to the job's run there."""
    for position, integration in enumerate(integrations):
        pointer = f"/integrations/{position}"
        wished = integration.wandb
        if position or fields.get("tracking") is not None:
            errors.append(FieldError(pointer, "is one too many: the curves of a job go to one run"))
            continue
        if wished.entity is not None:
            detail = "cannot be honoured: the account is that of the operator's W&B key; leave it out"
            errors.append(FieldError(f"{pointer}/wandb/entity", detail))
        fields["tracking"] = {"project": wished.project, "run_name": wished.name, "tags": wished.tags}


def _put(fields: dict[str, Any], place: str, value: object, pointer: str, errors: list[FieldError]) -> None:
    stage, _, name = place.rpartition("/")
    target = fields
    if stage:
        given = fields.get(stage)
        if given is not None and not isinstance(given, dict):
            return  # refused with all else that is wrong of the job's own fields
        target = fields[stage] = dict(given or {})
    if target.get(name, "auto") != "auto":
        errors.append(FieldError(pointer, f"and `{place.replace('/', '.')}` say the same thing; keep one of the two"))
    target[name] = value


def _refusal(errors: list[FieldError]) -> InvalidRequest:
    summary = "; ".join(f"{error.pointer[1:].replace('/', '.')}: {error.detail}" for error in errors)
    return InvalidRequest(f"The job cannot be accepted: {summary}", errors=errors)
