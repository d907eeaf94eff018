"""Submission of a job: from a request to a queued job, with every fault of the request named by its place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.base_models.directory import get_base_model
from core.database.columns import database_now
from core.database.repositories import datasets as dataset_rows
from core.database.repositories import jobs as job_rows
from core.database.repositories.events import EventDraft
from core.database.tables.datasets import Dataset, DatasetStatus
from core.database.tables.jobs import Job
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import DomainError, FieldError, InvalidRequest, NotFound
from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_request
from core.domain.jobs.job_state import Desired, JobStatus
from core.domain.jobs.methods import get_method, refused_settings
from core.domain.jobs.spec_forms import accepted_form
from core.domain.training.reward_architectures import REWARD_ARCHITECTURES
from core.domain.variants.checks import VariantError, get_variant, validate_beta, validate_options
from core.failpoints import reach
from core.services.access import quotas
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.base_models.starting_points import StartingPoint
from core.services.data_warnings import as_data, told, warnings_of
from core.services.views import DatasetWarning
from core.tokenization.template_settings import check_template_kwargs

MAX_MESSAGE_CHARS = 4096


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A request with variant, beta and options settled."""

    request: JobRequest
    requested: dict[str, Any]
    """Request as sent."""
    default_beta: float
    dataset_kinds: tuple[DatasetKind, ...]
    """Kinds of datasets that the method, or its variant, trains on."""
    folder: StartingPoint | None
    """The base model, when it is a folder of the models directory."""
    models_dir: Path
    errors: list[FieldError]


def prepare(backend: Backend, request: JobRequest) -> Draft:
    """Check what can be checked without the database."""
    method, requested = get_method(request.method), request.model_dump(mode="json", exclude_unset=True)
    errors = list(refused_settings(method, requested))
    values: dict[str, Any] = {}
    default_beta = 0.1
    dataset_kinds: tuple[DatasetKind, ...] = (DatasetKind.PREFERENCE,)
    try:
        default_beta, dataset_kinds = get_variant(request.variant).default_beta, method.kinds_for(request.variant)
        values["variant_options"] = validate_options(request.variant, request.variant_options)
    except VariantError as error:
        errors.append(_field_error(error))
    if request.beta is not None:
        try:
            values["beta"] = validate_beta(request.beta)
        except VariantError as error:
            errors.append(_field_error(error))
    errors += _tracking_faults(backend, request)
    return Draft(
        request=request.model_copy(update=values),
        requested=requested,
        default_beta=default_beta,
        dataset_kinds=dataset_kinds,
        folder=_find_folder(backend, request, errors),
        models_dir=backend.settings.models_dir,
        errors=errors,
    )


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A valid request: all that it names exists, and its numbers are resolved."""

    spec: JobSpec
    start: StartingPoint
    dataset: Dataset
    sft_dataset: Dataset | None
    validation_dataset: Dataset | None
    warnings: list[DatasetWarning]
    """Warnings of all its datasets."""

    @property
    def datasets(self) -> tuple[Dataset, Dataset | None, Dataset | None]:
        return self.dataset, self.sft_dataset, self.validation_dataset

    @property
    def datasets_by_setting(self) -> dict[str, Dataset | None]:
        """Return the versions that are read by the place of the setting that names each, as sweeps write it."""
        return dict(zip(("dataset_id", "sft/dataset_id", "validation_dataset_id"), self.datasets, strict=True))


def settle(session: Session, project_id: str, draft: Draft) -> Settled:
    """Check against the database. Raises InvalidRequest naming every fault."""
    request = draft.request
    errors = list(draft.errors)
    start = draft.folder or _find_policy(session, project_id, request, errors)
    kinds = draft.dataset_kinds
    find = partial(_find_dataset, session, project_id, errors=errors)
    dataset = _find_own_dataset(find, request, kinds)
    sft_dataset = validation_dataset = None
    if request.sft != "skip" and request.sft.dataset_id:
        sft_dataset = find(request.sft.dataset_id, (DatasetKind.DEMONSTRATION,), "/sft/dataset_id")
    if request.validation_dataset_id:
        validation_dataset = find(request.validation_dataset_id, kinds, "/validation_dataset_id")
    used = [dataset, sft_dataset, validation_dataset]
    if dataset is not None and dataset.kind is DatasetKind.DEMONSTRATION and request.swap_lines:
        errors.append(FieldError("/swap_lines", f"rows of {dataset.id} have one response each: nothing can be swapped"))
    if start is not None and request.chat_template_kwargs:
        errors += _template_faults(draft.models_dir, str(start.facts["name"]), request.chat_template_kwargs)
    if start is not None:
        check_length(request, start, errors)
        _check_architecture(request, start, errors)
    if errors or start is None or dataset is None:
        raise InvalidRequest(_summary(errors), errors=errors)
    spec = resolve_request(
        request.model_copy(update=_versions(request, dataset, sft_dataset, validation_dataset)),
        num_parameters=start.num_parameters,
        num_pairs=dataset.num_accepted,
        default_beta=draft.default_beta,
        context_length=start.facts.get("context_length"),
    )
    warnings = [warning for found in dict.fromkeys(used) if found is not None for warning in warnings_of(found)]
    return Settled(
        spec=spec,
        start=start,
        dataset=dataset,
        sft_dataset=sft_dataset,
        validation_dataset=validation_dataset,
        warnings=warnings,
    )


def pin_versions(
    requested: dict[str, Any], dataset: Dataset | None, sft_dataset: Dataset | None, validation_dataset: Dataset | None
) -> dict[str, Any]:
    """Return a job's request with these versions named where it names the datasets: newer ones may come meanwhile."""
    pinned = {**requested}
    if "dataset_version" not in requested:
        pinned["dataset_id"] = pinned_name(requested["dataset_id"], dataset)
    if validation_dataset is not None and requested.get("validation_dataset_id"):
        pinned["validation_dataset_id"] = pinned_name(requested["validation_dataset_id"], validation_dataset)
    sft = requested.get("sft")
    if sft_dataset is not None and isinstance(sft, dict) and sft.get("dataset_id"):
        pinned["sft"] = {**sft, "dataset_id": pinned_name(sft["dataset_id"], sft_dataset)}
    return pinned


def pinned_name(name: str, row: Dataset | None) -> str:
    """Return the name of the version where a dataset's own id is given, which reads the newest one."""
    return row.version_name if row is not None and name == (row.root_id or row.id) else name


def _versions(
    request: JobRequest, dataset: Dataset, sft_dataset: Dataset | None, validation_dataset: Dataset | None
) -> dict[str, Any]:
    """Return the settings that name datasets, with the versions that are read."""
    values: dict[str, Any] = {"dataset_id": dataset.public_id, "dataset_version": dataset.number}
    if sft_dataset is not None and request.sft != "skip":
        values["sft"] = request.sft.model_copy(update={"dataset_id": sft_dataset.public_id})
    if validation_dataset is not None:
        values["validation_dataset_id"] = validation_dataset.public_id
    return values


def insert(session: Session, project_id: str, job_id: str, draft: Draft, source: Job | None = None) -> Job:
    """Queue the job. Raises QuotaExceeded, StorageQuotaExceeded, InvalidRequest naming every fault."""
    request = draft.request
    quotas.require_room_for_job(session, project_id)
    settled = settle(session, project_id, draft)
    job = Job(
        id=job_id,
        project_id=project_id,
        name=request.name,
        user_metadata=request.metadata,
        priority=request.priority,
        nodes=settled.spec.nodes,
        requested=draft.requested,
        spec=accepted_form(settled.spec),
        dataset_id=settled.dataset.id,
        sft_dataset_id=settled.sft_dataset.id if settled.sft_dataset else None,
        validation_dataset_id=settled.validation_dataset.id if settled.validation_dataset else None,
        base_model_facts=settled.start.facts,
        base_job_id=settled.start.job_id,
        source_job_id=source.id if source else None,
        status=JobStatus.QUEUED,
        desired=Desired.RUN,
        created_at=database_now(),
        next_run_at=database_now(),
    )
    job_rows.insert_job(session, job, _submitted(settled.warnings, source))
    reach("submit.in_transaction")
    return job


def _submitted(warnings: Sequence[DatasetWarning], source: Job | None) -> EventDraft:
    """Return the job's first event, which has the warnings of its datasets."""
    data: dict[str, Any] = {**({"source_job_id": source.id} if source else {}), **as_data(warnings)}
    if not warnings:
        return EventDraft(kind="submitted", message="Queued.", data=data)
    message = f"Queued. {told(warnings)}"[:MAX_MESSAGE_CHARS]
    return EventDraft(kind="submitted", message=message, level="warning", data=data)


def check_length(request: JobRequest, start: StartingPoint, errors: list[FieldError]) -> None:
    """Refuse a length beyond a learned table of positions."""
    limit = start.facts.get("context_length")
    if limit is None or not start.facts.get("has_position_table") or "max_length" not in request.model_fields_set:
        return
    if request.max_length > limit:
        fault = (
            f"{request.max_length} tokens are more than the {limit} positions that the base model has learned; give "
            f"at most {limit}, or leave it out"
        )
        errors.append(FieldError("/max_length", fault))


def _check_architecture(request: JobRequest, start: StartingPoint, errors: list[FieldError]) -> None:
    """Refuse a base model for a reward model of whose type transformers has no class for sequences."""
    architecture = str(start.facts["architecture"])
    if get_method(request.method).publishes_policy or architecture in REWARD_ARCHITECTURES:
        return
    fault = (
        f"{request.base_model} is a {architecture}, of whose type transformers has no class for sequence "
        "classification, which a reward model is published as; use a base model of Llama, Mistral, Qwen, Gemma, Phi or "
        "OLMo, for instance"
    )
    errors.append(FieldError("/base_model", fault))


def _tracking_faults(backend: Backend, request: JobRequest) -> list[FieldError]:
    """Workers send the curves of all jobs to the operator's servers, or to none: any other wish cannot be honoured."""
    wished, settings = request.tracking, backend.settings
    if wished is None:
        return []
    if not (settings.wandb_project or settings.mlflow_tracking_uri):
        fault = (
            "cannot be honoured: the service sends no curves anywhere; its operator sets PREFTUNE_WANDB_PROJECT or "
            "PREFTUNE_MLFLOW_TRACKING_URI"
        )
        return [FieldError("/tracking", fault)]
    if wished.project is not None and wished.project != settings.wandb_project:
        place = f"to {settings.wandb_project}" if settings.wandb_project else "to no W&B project"
        fault = f"cannot be honoured: PREFTUNE_WANDB_PROJECT says where the curves of all jobs go, and they go {place}"
        return [FieldError("/tracking/project", fault)]
    return []


def _find_folder(backend: Backend, request: JobRequest, errors: list[FieldError]) -> StartingPoint | None:
    if starting_points.is_job_reference(request.base_model):
        return None
    try:
        return starting_points.find_folder(backend, request.base_model)
    except DomainError as error:
        if error.kind == "unavailable":
            raise
        errors.append(FieldError("/base_model", error.detail))
        return None


def _find_policy(
    session: Session, project_id: str, request: JobRequest, errors: list[FieldError]
) -> StartingPoint | None:
    if not starting_points.is_job_reference(request.base_model):
        return None
    try:
        return starting_points.find_policy(session, project_id, request.base_model)
    except InvalidRequest as error:
        errors.append(FieldError("/base_model", error.detail))
        return None


def _template_faults(models_dir: Path, base_model: str, template_kwargs: dict[str, Any]) -> list[FieldError]:
    """Return faults of rows that the template cannot render; of models only a worker has, the worker tells."""
    try:
        check_template_kwargs(get_base_model(models_dir, base_model).directory, template_kwargs)
    except NotFound:
        return []
    except InvalidRequest as error:
        return [FieldError("/chat_template_kwargs", error.detail)]
    return []


def _find_own_dataset(
    find: Callable[[str, tuple[DatasetKind, ...], str], Dataset | None],
    request: JobRequest,
    kinds: tuple[DatasetKind, ...],
) -> Dataset | None:
    """Find the version that the job trains on."""
    name, at, number = request.dataset_id.partition("@")
    if request.dataset_version is None:
        return find(request.dataset_id, kinds, "/dataset_id")
    exact = f"{name}@{request.dataset_version}"
    if at and number != str(request.dataset_version):
        exact = f"{request.dataset_id}@{request.dataset_version}"  # which nothing is called
    return find(exact, kinds, "/dataset_version")


def _find_dataset(
    session: Session,
    project_id: str,
    dataset_id: str,
    kinds: tuple[DatasetKind, ...],
    pointer: str,
    errors: list[FieldError],
) -> Dataset | None:
    """Find a version by its name, by a dataset's own id the newest, and keep it from deletion meanwhile."""
    newest = dataset_rows.find_newest(session, project_id, dataset_id)
    dataset = dataset_rows.share_dataset(session, project_id, newest.id) if newest else None
    fault = None
    if dataset is None:
        fault = f"there is no dataset {dataset_id}"
    elif dataset_rows.is_expired(session, dataset):
        fault = f"{dataset_id} has expired and is about to be deleted; send the file again"
    elif dataset.status is not DatasetStatus.READY:
        fault = f"{dataset_id} is {dataset.status.value}; it must be ready"
    elif dataset.kind not in kinds:
        needed = " or ".join(kind.value for kind in kinds)
        fault = f"{dataset_id} is a dataset of kind {dataset.kind.value}; this needs one of kind {needed}"
    if fault:
        errors.append(FieldError(pointer, fault))
        return None
    return dataset


def _field_error(error: VariantError) -> FieldError:
    field, slash, name = error.field.partition("/")
    return FieldError(f"/{field}{slash}{name.replace('~', '~0').replace('/', '~1')}", error.message)


def _summary(errors: list[FieldError]) -> str:
    return "The job cannot be accepted: " + "; ".join(f"{error.pointer}: {error.detail}" for error in errors)
