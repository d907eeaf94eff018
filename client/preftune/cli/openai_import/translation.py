"""Translation of a job at OpenAI into a request of this service, and what of it cannot be carried over."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]
KINDS: Final = {"dpo": "preference", "supervised": "demonstration"}
"""Methods that are carried over -> kind of the dataset that they train on."""
HYPERPARAMETERS: Final = {
    "dpo": ("beta", "n_epochs", "batch_size", "learning_rate_multiplier"),
    "supervised": ("n_epochs", "batch_size", "learning_rate_multiplier"),
}
JOB_KEY, BASE_KEY = "openai_job", "openai_import_base"
"""Metadata of a recreated job: the id that it had, and the base model at the root of its chain."""
OWN_FIELDS: Final = ("model", "training_file", "validation_file", "method", "hyperparameters")
"""Fields of the request that come from the job alone."""
_CHECKPOINT = ":ckpt-step-"


@dataclass(frozen=True, kw_only=True)
class SourceJob:
    """A job as OpenAI describes it, with what matters here."""

    id: str
    status: str
    model: str
    """What it started from: a model of OpenAI's, or another job's outcome."""
    outcome: str | None
    """Name of the model that it made."""
    method: str
    hyperparameters: Json
    training_file: str
    validation_file: str | None
    result_files: list[str]
    seed: int | None
    suffix: str | None
    metadata: dict[str, str]
    losses: list[str] = field(default_factory=list)
    """What cannot be carried over, a sentence each."""

    @property
    def kind(self) -> str | None:
        """Kind of its datasets; None for a method that this service does not have."""
        return KINDS.get(self.method)

    @property
    def parent_model(self) -> str | None:
        """Name of the tuned model that it started from, without a checkpoint; None for one of OpenAI's own."""
        return self.model.partition(_CHECKPOINT)[0] if self.model.startswith("ft:") else None


def read_job(job: Json) -> SourceJob:
    """Read a job's description; unknown parts are named among its losses."""
    method = job.get("method") or {}
    name = str(method.get("type") or "supervised")
    given = (method.get(name) or {}).get("hyperparameters") or job.get("hyperparameters") or {}
    known = HYPERPARAMETERS.get(name, ())
    kept = {key: given[key] for key in known if given.get(key) is not None}
    outcome = job.get("fine_tuned_model")
    model = str(job.get("model"))
    return SourceJob(
        id=str(job["id"]),
        status=str(job.get("status")),
        model=model,
        outcome=outcome,
        method=name,
        hyperparameters=kept,
        training_file=str(job.get("training_file")),
        validation_file=job.get("validation_file"),
        result_files=[str(file_id) for file_id in job.get("result_files") or []],
        seed=job.get("seed"),
        suffix=job.get("user_provided_suffix") or _suffix(outcome),
        metadata={str(key): str(value) for key, value in (job.get("metadata") or {}).items()},
        losses=list(_losses(job, name, given, known)),
    )


def request(job: SourceJob, *, model: str, base_model: str, files: dict[str, str], settings: Json) -> Json:
    """Return the body of `POST /v1/fine_tuning/jobs`.

    Args:
        model: what the job starts from here.
        base_model: the base model at the root of its chain.
        files: datasets here, by the id of their file at OpenAI.
        settings: further native fields, none of `OWN_FIELDS`; they go before what the job says, and their metadata is
            added to the job's.
    """
    body: Json = {
        "model": model,
        "training_file": files[job.training_file],
        "validation_file": files[job.validation_file] if job.validation_file else None,
        "method": {"type": job.method, job.method: {"hyperparameters": job.hyperparameters}},
        "seed": job.seed,
        "suffix": job.suffix,
    }
    metadata = job.metadata | settings.get("metadata", {}) | identity(job, base_model)
    return {key: value for key, value in body.items() if value is not None} | settings | {"metadata": metadata}


def identity(job: SourceJob, base_model: str) -> dict[str, str]:
    """Return the metadata by which the recreated job is found again."""
    return {JOB_KEY: job.id, BASE_KEY: base_model}


def idempotency_key(what: Json | list[Any]) -> str:
    """Return a key that is the same whenever the same is asked for."""
    return f"openai-import-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:40]}"


def _suffix(outcome: str | None) -> str | None:
    """Return the suffix in `ft:<base>:<organisation>:<suffix>:<id>`."""
    parts = (outcome or "").split(":")
    return parts[3] if len(parts) == 5 and parts[3] else None


def _losses(job: Json, method: str, given: Json, known: tuple[str, ...]) -> list[str]:
    found = []
    for integration in job.get("integrations") or []:
        found.append(f"integration {integration.get('type')}: the operator of the service sets where curves go")
    if method in KINDS:
        unknown = sorted(key for key in given if key not in known and given[key] is not None)
        found += [f"hyperparameter {key} ({given[key]}): there is none of that name" for key in unknown]
    if isinstance(given.get("learning_rate_multiplier"), int | float):
        multiplier = given["learning_rate_multiplier"]
        found.append(f"learning rate: {multiplier} times this service's own choice, as OpenAI's is not known")
    if _CHECKPOINT in str(job.get("model")):
        found.append(f"start from {job['model']}: here it starts from the end of that job, whose steps are others")
    return found
