"""Download of a dataset's rows to local disk, exactly as recorded.

What the store gives is compared with the size and SHA-256 that the dataset's row keeps. Rows that are damaged or gone
are made anew of the upload, whose digest is known too; they are trained on only where they have the recorded sum.
"""

from pathlib import Path

import structlog

from core.datasets.result import ROWS_FILE
from core.domain.errors import DomainError
from core.domain.jobs.event_kinds import ROWS_MADE_ANEW, ROWS_READ_OTHERWISE
from core.domain.jobs.failure_codes import FailureCode
from core.domain.trainer_protocol import TrainerEvent
from core.failpoints import reach
from core.services.attempts import recording
from core.services.attempts.inputs import StoredRows
from core.services.datasets import intake
from core.services.datasets.rereading import reread
from core.storage.object_store import ObjectNotFound
from core.storage.trees import TreeDamaged, fetch_file, file_sha256
from worker.attempt.failures import StagingFailed
from worker.attempt.inputs.fetcher import Fetcher

_ADVICE = "Upload the dataset again."

_log = structlog.get_logger(__name__)


def fetch_rows(fetcher: Fetcher, rows: StoredRows, name: str) -> Path:
    """Fetch the rows to a file of that name in the work directory. Raises StagingFailed, Unavailable."""
    target = fetcher.work_dir / name
    fetcher.check()
    _tell_other_reading(fetcher, rows.dataset_id)
    try:
        fetcher.patiently(lambda: _fetch(fetcher, rows, target))
    except ObjectNotFound:
        raise StagingFailed(FailureCode.BAD_DATA, "The rows of a dataset are missing in the store.") from None
    except TreeDamaged as damage:
        _log.error("object_damaged", key=rows.key, detail=str(damage))
        _make_anew(fetcher, rows, target, str(damage))
    reach("staging.rows_fetched")
    return target


def _tell_other_reading(fetcher: Fetcher, dataset_id: str) -> None:
    """Nothing is trained on rows of an earlier version before they were compared with their file."""
    backend, claim = fetcher.backend, fetcher.claim
    mark = fetcher.patiently(lambda: reread(backend, claim.project_id, dataset_id, fetcher.check))
    if mark is None:
        return
    message = f"{dataset_id}: {mark['detail']}"
    event = TrainerEvent(
        level="warning", kind=ROWS_READ_OTHERWISE, message=message, data={"dataset_id": dataset_id, **mark}
    )
    fetcher.patiently(lambda: recording.record_events(claim, [event]))


def _fetch(fetcher: Fetcher, rows: StoredRows, target: Path) -> None:
    if rows.file is None:
        fetcher.backend.store.get_file(rows.key, target)
    else:
        fetch_file(fetcher.backend.store, rows.file, target)


def _make_anew(fetcher: Fetcher, rows: StoredRows, target: Path, damage: str) -> None:
    """Check the upload again, and restore its rows in the store."""
    assert rows.file is not None
    folder = fetcher.work_dir / f"anew-{target.stem}"
    folder.mkdir()
    original, settings = folder / "original", fetcher.backend.settings
    try:
        fetcher.patiently(lambda: fetch_file(fetcher.backend.store, rows.original, original))
        intake.check(settings, original, intake.check_options(rows.options, settings), folder, fetcher.check)
    except TreeDamaged as worse:
        raise _damaged(damage, f"The upload cannot replace them: {worse}") from None
    except DomainError as error:
        if error.kind in ("unavailable", "fenced"):
            raise
        raise _damaged(damage, f"The upload cannot be checked again: {error.detail}") from None
    made = folder / ROWS_FILE
    if not made.is_file() or file_sha256(made) != rows.file.sha256:
        raise _damaged(damage, "This version makes other rows of the upload.")
    made.replace(target)
    fetcher.patiently(lambda: fetcher.backend.store.put_file(rows.key, target, is_final=True))
    message = (
        f"Stored rows were damaged ({damage}) They were made again from the upload, and have the recorded SHA-256."
    )
    event = TrainerEvent(level="warning", kind=ROWS_MADE_ANEW, message=message, data={"sha256": rows.file.sha256})
    fetcher.patiently(lambda: recording.record_events(fetcher.claim, [event]))


def _damaged(damage: str, why: str) -> StagingFailed:
    return StagingFailed(FailureCode.BAD_DATA, f"The stored rows of a dataset are damaged: {damage} {why} {_ADVICE}")
