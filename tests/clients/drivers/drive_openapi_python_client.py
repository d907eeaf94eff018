"""From upload to download with the client that openapi-python-client generates; prints what it saw as JSON."""

import hashlib
import json
import os
import sys
import time
from io import BytesIO
from pathlib import Path

from openapi_python_client_made.api.artifact import get_artifact, get_artifact_archive, get_artifact_file
from openapi_python_client_made.api.datasets import create_dataset, create_dataset_from_body
from openapi_python_client_made.api.jobs import get_job, get_job_metrics, get_job_metrics_csv, list_jobs, submit_job
from openapi_python_client_made.client import AuthenticatedClient
from openapi_python_client_made.models import (
    Artifact,
    CreateDatasetBody,
    Dataset,
    Job,
    JobPage,
    JobRequest,
    JobRequestMetadata,
    MetricsPage,
    Problem,
    SftSettings,
)
from openapi_python_client_made.types import File

client = AuthenticatedClient(base_url=os.environ["PREFTUNE_URL"], token=os.environ["PREFTUNE_API_KEY"])
pairs = Path(os.environ["PAIRS"]).read_bytes()

form = CreateDatasetBody(file=File(BytesIO(pairs), file_name="pairs.jsonl"), name="mine", metadata='{"team": "a"}')
dataset = create_dataset.sync(client=client, body=form)
assert isinstance(dataset, Dataset), dataset
raw = create_dataset_from_body.sync(client=client, body=File(BytesIO(pairs)), name="raw")
assert isinstance(raw, Dataset), raw
assert raw.sha256 == dataset.sha256

metadata = JobRequestMetadata.from_dict({"by": os.environ["NAME"]})
request = JobRequest(
    base_model=os.environ["BASE_MODEL"], dataset_id=dataset.id, sft=SftSettings(epochs=2), metadata=metadata
)
job = submit_job.sync(client=client, body=request)
assert isinstance(job, Job), job
while job.status.value != "succeeded":
    time.sleep(0.05)
    found = get_job.sync(job.id, client=client)
    assert isinstance(found, Job), found
    job = found
page = get_job_metrics.sync(job.id, client=client)
assert isinstance(page, MetricsPage), page
table = get_job_metrics_csv.sync(job.id, client=client)
assert isinstance(table, str), table
mine = list_jobs.sync(client=client, metadata=[f"by:{os.environ['NAME']}"])
assert isinstance(mine, JobPage), mine
artifact = get_artifact.sync(job.id, client=client)
assert isinstance(artifact, Artifact), artifact
file = get_artifact_file.sync(job.id, artifact.files[0].path, client=client)
assert isinstance(file, File), file
archive = get_artifact_archive.sync_detailed(job.id, client=client)
missing = get_job.sync("job_none", client=client)
assert isinstance(missing, Problem), missing
invalid = submit_job.sync(client=client, body=JobRequest(base_model="none", dataset_id="none", keep_checkpoints=0))
assert isinstance(invalid, Problem), invalid
assert invalid.errors, invalid

sys.stdout.write(
    json.dumps(
        {
            "dataset": dataset.id,
            "job": job.id,
            "steps": [point.step for point in page.points],
            "lines": len(table.splitlines()),
            "found": [each.id for each in mine.data],
            "sha256": hashlib.sha256(file.payload.read()).hexdigest(),
            "archive": len(archive.content),
            "missing": missing.code,
            "invalid": [error.pointer for error in invalid.errors],
        }
    )
)
