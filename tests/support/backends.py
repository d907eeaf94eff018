"""Backends for tests: a real database, objects in a folder, and a queue that only counts."""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import text

from core.database.columns import database_now
from core.database.session import Database
from core.database.tables.datasets import Dataset, DatasetStatus
from core.datasets.reading import READER_VERSION
from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.job_spec import JobRequest
from core.domain.jobs.job_state import Stage
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.domain.trainer_protocol import MetricPoint
from core.services.attempts import lifecycle
from core.services.attempts.checkpoints import NewCheckpoint, commit_checkpoint, commit_policy
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import Publication
from core.services.backend import Backend
from core.services.curves import pages
from core.services.jobs import jobs
from core.services.operations.sweep import expire, list_leases
from core.services.views import JobView
from core.settings import Settings
from core.storage import keys
from core.storage.local import LocalObjectStore
from core.storage.trees import upload_tree, write_sums

PROJECT = "default"
BASE_MODEL = "tiny"
NUM_PARAMETERS = 12
LEASE_SECONDS = 0.3


class CountingQueue:
    def __init__(self) -> None:
        self.num_wakes = 0

    def wake(self) -> None:
        self.num_wakes += 1

    def check(self) -> None:
        return


def make_backend(folder: Path, database: Database, **settings: object) -> Backend:
    """Leases are short: what the tests wait for is their end."""
    models_dir = folder / "models"
    make_base_model(models_dir / BASE_MODEL)
    values = {"lease_seconds": LEASE_SECONDS, "heartbeat_seconds": 0.05, "sweep_seconds": 0.05} | settings
    return Backend(
        settings=Settings(data_dir=folder / "data", models_dir=models_dir, **values),  # type: ignore[arg-type]
        database=database,
        store=LocalObjectStore(folder / "objects"),
        queue=CountingQueue(),
    )


def make_base_model(folder: Path) -> None:
    """The least that counts as a base model: a config, a tokenizer, twelve zero weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["TinyForCausalLM"], "model_type": "tiny", "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(48))


def set_architecture(settings: Settings, name: str) -> None:
    """Of the base model, for jobs that are submitted from now on."""
    config = settings.models_dir / BASE_MODEL / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": [name]}))


def add_dataset(
    backend: Backend, dataset_id: str = "ds_1", kind: DatasetKind = DatasetKind.PREFERENCE, num_rows: int = 100
) -> str:
    """A ready dataset, without the file that it would come from."""
    with_rows = Dataset(
        id=dataset_id,
        project_id=PROJECT,
        name=dataset_id,
        status=DatasetStatus.READY,
        kind=kind,
        format="jsonl",
        filename="rows.jsonl",
        sha256="0" * 64,
        num_bytes=1,
        num_rows=num_rows,
        num_accepted=num_rows,
        report={},
        options={},
        user_metadata={},
        reader_version=READER_VERSION,
        created_at=database_now(),
    )
    backend.database.write(lambda session: session.add(with_rows))
    return dataset_id


def submit(backend: Backend, **fields: object) -> JobView:
    request = JobRequest.model_validate({"base_model": BASE_MODEL, "dataset_id": "ds_1"} | fields)
    return jobs.submit(backend, PROJECT, request)


def claim(backend: Backend, worker: str = "worker-1") -> ClaimedJob:
    """The next job, which must be there."""
    taken = lifecycle.claim(backend, worker=worker, host="host", device="cpu")
    assert taken is not None
    return taken


def status(backend: Backend, job_id: str) -> str:
    return jobs.get(backend, PROJECT, job_id).status.value


def point(step: int, loss: float = 0.5, stage: str = "dpo", split: str = "train", **values: float) -> MetricPoint:
    return MetricPoint(
        stage=stage,  # type: ignore[arg-type]
        split=split,  # type: ignore[arg-type]
        step=step,
        epoch=step / 10,
        values={"loss": loss} | values,
    )


def checkpoint(backend: Backend, claim: ClaimedJob, step: int, stage: Stage = Stage.DPO) -> str:
    """A committed checkpoint with one small object; returns its id."""
    prefix = keys.checkpoint_prefix(claim.project_id, claim.job_id, claim.attempt_name, stage.value, step)
    backend.store.put_bytes(prefix + "manifest.json", b"{}")
    tree = StoredTree(prefix=prefix, manifest_sha256="1" * 64)
    return commit_checkpoint(claim, NewCheckpoint(stage=stage, step=step, tree=tree, num_bytes=2))


def checkpoint_with_policy(
    backend: Backend, claim: ClaimedJob, step: int, files: dict[str, bytes], stage: Stage = Stage.DPO
) -> str:
    """A committed checkpoint whose policy is a real tree of these files; returns its id."""
    checkpoint_id = checkpoint(backend, claim, step, stage)
    prefix = keys.policy_prefix(claim.project_id, claim.job_id, claim.attempt_name, stage.value, step)
    with TemporaryDirectory() as folder:
        for path, content in files.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        write_sums(Path(folder))
        uploaded = upload_tree(backend.store, prefix, Path(folder))
    tree = StoredTree(prefix=prefix, manifest_sha256=uploaded.manifest_sha256)
    commit_policy(claim, checkpoint_id, tree, uploaded.num_bytes)
    return checkpoint_id


def publication(backend: Backend, claim: ClaimedJob, names: Sequence[str] = ("model.safetensors",)) -> Publication:
    prefix = keys.artifact_prefix(claim.project_id, claim.job_id, claim.attempt_name)
    files = []
    for name in names:
        backend.store.put_bytes(prefix + name, b"weights")
        digest = hashlib.sha256(b"weights").hexdigest()
        files.append(StoredFile(path=name, key=prefix + name, num_bytes=7, sha256=digest))
    return Publication(tree=StoredTree(prefix=prefix, manifest_sha256="3" * 64), files=files)


def lose(backend: Backend, held: ClaimedJob) -> None:
    """Take the job away as the sweeper does once it is sure."""
    lease = next(lease for lease in list_leases(backend) if lease.job_id == held.job_id)
    assert expire(backend, lease)


def make_due(backend: Backend) -> None:
    """End every back-off."""
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET next_run_at = created_at")))


def curve(backend: Backend, job_id: str) -> list[tuple[str, str, int, float | None]]:
    return [
        (found.stage.value, found.split, found.step, found.values["loss"])
        for found in pages.all_points(backend, PROJECT, job_id)
    ]
