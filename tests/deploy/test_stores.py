"""S3 servers of other makers: the contract of stores, the doctor, a job, and what each promises beyond the needed."""

import base64
import hashlib
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import serve
from botocore.exceptions import ClientError
from contract.test_object_store import (
    test_a_large_file_comes_back_whole,
    test_a_listing_is_complete,
    test_a_missing_key_is_not_found_everywhere,
    test_a_tree_comes_back_whole,
    test_an_empty_range_is_empty,
    test_bytes_come_back,
    test_check_passes_and_leaves_nothing,
    test_deleting_is_idempotent,
    test_racing_writers_leave_one_whole_object,
    test_ranges,
    test_reading_is_in_chunks,
    test_stat_tells_size_and_time,
)
from deploy import stores
from deploy.documented import cells
from deploy.stores import KEY_ID, SECRET, Store
from toy_jobs import InProcessWorker, attempts_of, check_succeeded, submit_toy, wait_for_status
from toy_trainer import Script

from core.services.operations.diagnosis import diagnose
from core.storage.object_store import StoreUnavailable
from core.storage.s3 import S3ObjectStore

CONTRACT = (
    test_a_large_file_comes_back_whole,
    test_a_listing_is_complete,
    test_a_missing_key_is_not_found_everywhere,
    test_a_tree_comes_back_whole,
    test_an_empty_range_is_empty,
    test_bytes_come_back,
    test_check_passes_and_leaves_nothing,
    test_deleting_is_idempotent,
    test_racing_writers_leave_one_whole_object,
    test_ranges,
    test_reading_is_in_chunks,
    test_stat_tells_size_and_time,
)
"""Run here too, against each server: pytest collects them by their names."""
NUM_LISTED = 1005
"""More than a page."""


@pytest.fixture(scope="module", params=stores.NAMES)
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with stores.store(request.param) as running:
        yield running


@pytest.fixture
def store(server: Store) -> S3ObjectStore:
    return S3ObjectStore(server.access(prefix="some/prefix/"))


def test_a_listing_goes_over_pages(store: S3ObjectStore) -> None:
    names = [f"many/{number:04d}/file" for number in range(NUM_LISTED)]
    for name in names:
        store.put_bytes(name, b"")
    assert [info.key for info in store.list("many/")] == names


def test_a_job_from_upload_to_download(server: Store, tmp_path: Path) -> None:
    settings = {
        "storage_url": "s3://jobs/prefix",
        "s3_endpoint_url": server.endpoint_url,
        "s3_access_key_id": KEY_ID,
        "s3_secret_access_key": SECRET,
        "poll_seconds": 0.2,
    }
    with serve(tmp_path, **settings) as api, InProcessWorker(api.backend):
        job_id = submit_toy(api.backend, Script())
        wait_for_status(api.backend, job_id, "succeeded", "failed")
        check_succeeded(api.backend, job_id, Script())
        assert len(attempts_of(api.backend, job_id)) == 1, "no attempt that the store refused"
        archive = api.http.get(f"/jobs/{job_id}/artifact/archive")
        assert archive.headers["content-type"] == "application/x-tar"
        found = next(finding for finding in diagnose(api.backend) if finding.name == "store")
    assert (found.state, _mentions(found.detail)) == _EXPECTED_OF_DOCTOR.get(server.name, ("ok", set())), found.detail


_EXPECTED_OF_DOCTOR: dict[str, tuple[str, set[str]]] = {
    "rclone": ("ok", {"If-None-Match"}),
    "JuiceFS gateway": ("ok", {"If-None-Match"}),
    "nanio": ("ok", {"If-None-Match"}),
    "localbucket": ("warning", {"unfinished uploads"}),
    "moto": ("warning", {"any key"}),
}


def _mentions(detail: str) -> set[str]:
    return {words for words in ("If-None-Match", "unfinished uploads", "any key") if words in detail}


def test_a_bucket_that_never_had_an_unfinished_upload_has_none(server: Store) -> None:
    store = S3ObjectStore(server.access())
    store.put_bytes("a/b", b"x")
    if cells(stores.PAGE, "What they promise")[server.name][2] == "yes":
        store.remove_leftovers(older_than_seconds=3600)
    else:
        with pytest.raises(StoreUnavailable):
            store.remove_leftovers(older_than_seconds=3600)


def test_what_it_promises_is_what_the_page_says(server: Store) -> None:
    store = S3ObjectStore(server.access())
    store.put_bytes("a/b", b"0123456789")
    client: Any = store._client
    place = {"Bucket": store._access.bucket, "Key": "a/b"}

    def outcome(request: Any) -> int:
        """Return the status of the answer."""
        try:
            return int(request()["ResponseMetadata"]["HTTPStatusCode"])
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])

    wrong_md5 = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    begun = client.create_multipart_upload(Bucket=place["Bucket"], Key="begun")["UploadId"]
    uploads = outcome(lambda: client.list_multipart_uploads(Bucket=place["Bucket"]))
    client.abort_multipart_upload(Bucket=place["Bucket"], Key="begun", UploadId=begun)
    other = place | {"Key": "a/other"}
    sum_status = outcome(lambda: client.put_object(**other, Body=b"x", ContentMD5=wrong_md5))
    range_kind = _range_beyond_the_end(client, place)
    measured = [
        "served" if store.takes_any_key() else "refused",
        "ignored" if store.ignores_conditions() else "honoured",
        "yes" if uploads == 200 else str(uploads),
        "ignored" if sum_status == 200 else "refused",
        range_kind,
        "sent" if _presigned_name(store) == "attachment; filename*=UTF-8''n" else "not sent",
    ]
    assert cells(stores.PAGE, "What they promise")[server.name] == measured


def _range_beyond_the_end(client: Any, place: dict[str, str]) -> str:
    """Return how a range that ends behind the object is answered."""
    try:
        answer = client.get_object(**place, Range="bytes=5-99")
    except ClientError as error:
        return str(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert answer["Body"].read() == b"56789"
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return "cut" if status == 206 else f"cut, as {status}"


def _presigned_name(store: S3ObjectStore) -> str | None:
    url = store.download_url("a/b", filename="n", seconds=60)
    assert url is not None
    with urllib.request.urlopen(url, timeout=10) as answer:
        name: str | None = answer.headers["Content-Disposition"]
        return name


def test_a_wrong_key_is_an_outage_that_is_told(server: Store) -> None:
    """Where keys are checked; a lost object it must never look like."""
    if cells(stores.PAGE, "What they promise")[server.name][0] == "served":
        pytest.skip(f"{server.name} checks no keys")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="refuses this service"):
        S3ObjectStore(server.access(secret_access_key="wrong-wrong-wrong")).put_bytes("a", b"x")
    assert time.monotonic() - began < 20
