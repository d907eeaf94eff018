"""The Python client of a Preftune service.

from preftune import Client

client = Client("http://127.0.0.1:8000")
dataset = client.datasets.upload("pairs.jsonl")
job = client.jobs.submit(base_model="smollm2-135m-instruct", dataset_id=dataset["id"], beta=0.1)
for point in client.jobs.follow_metrics(job["id"]):
    print(point["stage"], point["step"], point["values"]["loss"])
client.jobs.download(job["id"], "policy/")
"""

from preftune.client import Client
from preftune.errors import (
    ApiError,
    ConnectionFailed,
    DownloadFailed,
    ExportFailed,
    InvalidAddress,
    PreftuneError,
    RepublishFailed,
    ScoringFailed,
    UploadInterrupted,
)
from preftune.stream import StreamEvent

__all__ = [
    "ApiError",
    "Client",
    "ConnectionFailed",
    "DownloadFailed",
    "ExportFailed",
    "InvalidAddress",
    "PreftuneError",
    "RepublishFailed",
    "ScoringFailed",
    "StreamEvent",
    "UploadInterrupted",
]
