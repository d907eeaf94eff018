"""Publication of an artifact folder: records, curves, report, model card, sums; uploaded and read back."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.domain.trainer_protocol import Done, Hello
from core.domain.training.artifact_files import PAIRS_FILE, SUMMARY_FILE
from core.failpoints import reach
from core.services.attempts import publication
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import Publication
from core.services.curves import pages
from core.services.views import MetricPointView
from core.storage import keys
from core.storage.trees import check_stored, upload_tree, write_sums
from worker.artifact.curves_svg import draw_curves
from worker.artifact.model_card import model_card
from worker.artifact.report_html import html_report
from worker.artifact.tensorboard import write_event_files

EVENT_FILES_DIR = "tensorboard"
CURVES_FILE = "curves.svg"


@dataclass(frozen=True, kw_only=True)
class TrainedProduct:
    """Output of a trainer, with its summary."""

    done: Done
    spec: dict[str, Any]
    hello: Hello | None


def publish(claim: ClaimedJob, product: TrainedProduct, *, check: Callable[[], None]) -> Publication:
    """Upload everything without touching the job's row. Raises StoreUnavailable; may be repeated."""
    directory = Path(product.done.directory)
    _complete(claim, product, directory)
    reach("publish.folder_completed")
    prefix = keys.artifact_prefix(claim.project_id, claim.job_id, claim.attempt_name)
    uploaded = upload_tree(claim.backend.store, prefix, directory, between_files=check)
    # The trainer has loaded and measured this folder: what the store gives back must be the same bytes.
    check_stored(claim.backend.store, uploaded, between_files=check)
    reach("publish.uploaded")
    results = _summary(directory / SUMMARY_FILE).get("results")
    return Publication(tree=uploaded, files=uploaded.files, results=results)


def _complete(claim: ClaimedJob, product: TrainedProduct, directory: Path) -> None:
    record = _record(claim, product) | {"summary": _summary(directory / SUMMARY_FILE)}
    points = pages.all_points(claim.backend, claim.project_id, claim.job_id)
    _write(directory / "metrics.jsonl", "".join(_line(point) for point in points))
    _write(directory / CURVES_FILE, draw_curves(points))
    write_event_files(points, directory / EVENT_FILES_DIR)
    complete_records(directory, record)


def complete_records(directory: Path, record: dict[str, Any]) -> None:
    """Write `job.json` and what people read of it, card and report; then the sums of all files."""
    _write(directory / "job.json", json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    curves = (directory / CURVES_FILE).read_text(encoding="utf-8")
    _write(directory / "report.html", html_report(record, curves, _pairs(directory / PAIRS_FILE)))
    _write(directory / "README.md", model_card(record))
    write_sums(directory)


def _line(point: MetricPointView) -> str:
    values = {
        "stage": point.stage.value,
        "split": point.split,
        "step": point.step,
        "epoch": point.epoch,
        "values": point.values,
    }
    return json.dumps(values) + "\n"


def _pairs(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines)


def _summary(path: Path) -> dict[str, Any]:
    """Return the trainer's measurements besides the curves."""
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return summary


def _record(claim: ClaimedJob, product: TrainedProduct) -> dict[str, Any]:
    """Return all that is needed to reproduce the policy."""
    return publication.made_of(claim.backend, claim) | {
        "job_id": claim.job_id,
        "attempt": claim.attempt,
        "spec": product.spec,
        "evaluation": product.done.evaluation,
        "versions": product.hello.versions if product.hello else {},
        "device": product.hello.device if product.hello else claim.device,
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
