"""From upload to download with the client that openapi-generator generates for Python; prints what it saw as JSON."""

import hashlib
import json
import os
import sys
import time

from openapi_client import ApiClient, Configuration
from openapi_client.api.artifact_api import ArtifactApi
from openapi_client.api.datasets_api import DatasetsApi
from openapi_client.api.jobs_api import JobsApi
from openapi_client.exceptions import NotFoundException, UnprocessableEntityException
from openapi_client.models.dpo_settings_epochs import DpoSettingsEpochs
from openapi_client.models.job_request import JobRequest
from openapi_client.models.job_request_sft import JobRequestSft
from openapi_client.models.problem import Problem
from openapi_client.models.sft_settings import SftSettings

configuration = Configuration(host=os.environ["PREFTUNE_URL"], access_token=os.environ["PREFTUNE_API_KEY"])
with open(os.environ["PAIRS"], "rb") as opened:
    pairs = opened.read()

with ApiClient(configuration) as api:
    datasets, jobs, artifacts = DatasetsApi(api), JobsApi(api), ArtifactApi(api)
    dataset = datasets.create_dataset(file=("pairs.jsonl", pairs), name="mine", metadata='{"team": "a"}')
    raw = datasets.create_dataset_from_body(pairs, name="raw")
    assert raw.sha256 == dataset.sha256
    request = JobRequest(
        base_model=os.environ["BASE_MODEL"],
        dataset_id=dataset.id,
        sft=JobRequestSft(SftSettings(epochs=DpoSettingsEpochs(2))),
        metadata={"by": os.environ["NAME"]},
    )
    job = jobs.submit_job(request)
    while job.status.value != "succeeded":
        time.sleep(0.05)
        job = jobs.get_job(job.id)
    page = jobs.get_job_metrics(job.id)
    table = jobs.get_job_metrics_csv(job.id)
    mine = jobs.list_jobs(metadata=[f"by:{os.environ['NAME']}"])
    artifact = artifacts.get_artifact(job.id)
    file = artifacts.get_artifact_file(job.id, artifact.files[0].path)
    archive = artifacts.get_artifact_archive(job.id)
    try:
        jobs.get_job("job_none")
    except NotFoundException as error:
        missing = error.data
    try:
        jobs.submit_job(JobRequest(base_model="none", dataset_id="none"))
    except UnprocessableEntityException as error:
        invalid = error.data
    assert isinstance(missing, Problem)
    assert isinstance(invalid, Problem)
    assert invalid.errors

sys.stdout.write(
    json.dumps(
        {
            "dataset": dataset.id,
            "job": job.id,
            "steps": [point.step for point in page.points],
            "lines": len(table.splitlines()),
            "found": [each.id for each in mine.data],
            "sha256": hashlib.sha256(file).hexdigest(),
            "archive": len(archive),
            "missing": missing.code,
            "invalid": [error.pointer for error in invalid.errors],
        }
    )
)
