"""Makes the artifact folder whole (`job.json`, `metrics.jsonl`, model card, sums) and uploads it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import jobs as job_rows
from core.domain.trainer_protocol import Done, Hello
from core.failpoints import reach
from core.services import metrics
from core.services.attempts import Claim, Publication, PublishedFile, StoredTree
from core.services.backend import Backend
from core.storage import keys
from core.storage.trees import describe, upload_tree
from worker.model_card import model_card

SUMS_FILE = "SHA256SUMS"


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a trainer made, and what it said of itself."""

    done: Done
    spec: dict[str, Any]
    hello: Hello | None


def publish(backend: Backend, claim: Claim, product: Product, *, check: Callable[[], None]) -> Publication:
    """Upload everything; the job's row is not touched. Raises StoreUnavailable; publishing again is safe."""
    directory = Path(product.done.directory)
    _complete(backend, claim, product, directory)
    reach("publish.folder_completed")
    prefix = keys.artifact_prefix(claim.project_id, claim.job_id, claim.attempt)
    uploaded = upload_tree(backend.store, prefix, directory, between_files=check)
    reach("publish.uploaded")
    files = [
        PublishedFile(path=file.path, key=prefix + file.path, num_bytes=file.num_bytes, sha256=file.sha256)
        for file in uploaded.files
    ]
    return Publication(tree=StoredTree(prefix=prefix, manifest_sha256=uploaded.manifest_sha256), files=files)


def _complete(backend: Backend, claim: Claim, product: Product, directory: Path) -> None:
    record = _record(backend, claim, product)
    _write(directory / "job.json", json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    points = metrics.all_points(backend, claim.project_id, claim.job_id)
    lines = [
        json.dumps(
            {
                "stage": point.stage.value,
                "split": point.split,
                "step": point.step,
                "epoch": point.epoch,
                "values": point.values,
            }
        )
        for point in points
    ]
    _write(directory / "metrics.jsonl", "".join(line + "\n" for line in lines))
    _write(directory / "README.md", model_card(record))
    (directory / SUMS_FILE).unlink(missing_ok=True)  # of an earlier try
    sums = [f"{file.sha256}  {file.path}\n" for file in describe(directory)]
    _write(directory / SUMS_FILE, "".join(sums))


def _record(backend: Backend, claim: Claim, product: Product) -> dict[str, Any]:
    """What the policy was made of and how: enough to make it again."""

    def work(session: Any) -> tuple[dict[str, Any], dict[str, str]]:
        job = job_rows.find_job(session, claim.project_id, claim.job_id)
        assert job is not None
        names = {job.dataset_id, job.sft_dataset_id, job.validation_dataset_id} - {None}
        found = [dataset_rows.find_dataset(session, claim.project_id, str(name)) for name in sorted(map(str, names))]
        return job.base_model_facts, {dataset.id: dataset.sha256 for dataset in found if dataset is not None}

    facts, sums = backend.database.read(work)
    return {
        "job_id": claim.job_id,
        "attempt": claim.attempt,
        "spec": product.spec,
        "base_model": facts,
        "dataset_sha256": sums,
        "evaluation": product.done.evaluation,
        "versions": product.hello.versions if product.hello else {},
        "device": product.hello.device if product.hello else claim.device,
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
