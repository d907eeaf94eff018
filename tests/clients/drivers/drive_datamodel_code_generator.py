"""Real answers read by the models that datamodel-code-generator makes, and a body written by them."""

import hashlib
import json
import os
import sys
import time
from typing import Any

import httpx
from datamodel_code_generator_made import Artifact, Dataset, Job, JobPage, JobRequest, MetricsPage, Problem, SftSettings

headers = {"Authorization": f"Bearer {os.environ['PREFTUNE_API_KEY']}"}
with (
    httpx.Client(base_url=os.environ["PREFTUNE_URL"], headers=headers, timeout=60) as http,
    open(os.environ["PAIRS"], "rb") as pairs,
):
    dataset = Dataset.model_validate(http.post("/datasets", files={"file": ("pairs.jsonl", pairs)}).json())
    request = JobRequest(
        base_model=os.environ["BASE_MODEL"],
        dataset_id=dataset.id,
        sft=SftSettings(epochs=2),
        metadata={"by": os.environ["NAME"]},
    )
    body: dict[str, Any] = request.model_dump(mode="json", exclude_unset=True)
    job = Job.model_validate(http.post("/jobs", json=body).json())
    while job.status != "succeeded":
        time.sleep(0.05)
        job = Job.model_validate(http.get(f"/jobs/{job.id}").json())
    page = MetricsPage.model_validate(http.get(f"/jobs/{job.id}/metrics").json())
    mine = JobPage.model_validate(http.get("/jobs", params={"metadata": f"by:{os.environ['NAME']}"}).json())
    artifact = Artifact.model_validate(http.get(f"/jobs/{job.id}/artifact").json())
    file = http.get(artifact.files[0].url).content
    missing = Problem.model_validate(http.get("/jobs/job_none").json())
    invalid = Problem.model_validate(http.post("/jobs", json={"base_model": "none", "dataset_id": "none"}).json())

sys.stdout.write(
    json.dumps(
        {
            "dataset": dataset.id,
            "job": job.id,
            "steps": [point.step for point in page.points],
            "found": [each.id for each in mine.data],
            "sha256": hashlib.sha256(file).hexdigest(),
            "missing": missing.code,
            "invalid": [error.pointer for error in invalid.errors or []],
        }
    )
)
