"""Downloads with the objects in a real S3 store: through the API however often they break off, and past it."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from api_server import RunningApi, serve
from backends import claim
from relay import Relay
from servers import S3Server, run_s3

from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts import lifecycle
from core.services.attempts.lifecycle import Publication
from core.services.backend import Backend
from core.storage import keys
from core.storage.s3 import S3Access, S3ObjectStore
from preftune import Client

MIB = 1024 * 1024
CONTENT = random.Random(9).randbytes(40 * MIB + 5)
NAME = "adapter/mödel.safetensors"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with run_s3() as server:
        yield server


@pytest.fixture(scope="module")
def api(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    settings = {
        "storage_url": "s3://policies/some/prefix",
        "s3_endpoint_url": s3.endpoint_url,
        "s3_access_key_id": s3.access_key_id,
        "s3_secret_access_key": s3.secret_access_key,
    }
    with serve(Path(tmp_path_factory.mktemp("api")), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def job_id(api: RunningApi) -> str:
    job_id = str(api.submit()["id"])
    publish(api.backend)
    return job_id


def publish(backend: Backend) -> None:
    held = claim(backend)
    prefix = keys.artifact_prefix(held.project_id, held.job_id, held.attempt_name)
    backend.store.put_bytes(prefix + NAME, CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = StoredFile(path=NAME, key=prefix + NAME, num_bytes=len(CONTENT), sha256=digest)
    tree = StoredTree(prefix=prefix, manifest_sha256="3" * 64)
    lifecycle.finish_succeeded(held, Publication(tree=tree, files=[file]))


def test_a_redirect_leads_to_the_bytes_in_the_store_for_a_short_time(
    api: RunningApi, s3: S3Server, job_id: str
) -> None:
    (file,) = api.http.get(f"/jobs/{job_id}/artifact").json()["files"]
    answer = api.http.get(file["url"], params={"redirect": "true"})
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["cache-control"] == "no-store"
    url = answer.headers["location"]
    assert url.startswith(s3.endpoint_url)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["300"]
    whole = httpx.get(url)  # without a key of the service
    assert hashlib.sha256(whole.content).hexdigest() == file["sha256"]
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''m%C3%B6del.safetensors"
    part = httpx.get(url, headers={"Range": f"bytes={MIB}-{MIB + 9}"})
    assert (part.status_code, part.content) == (206, CONTENT[MIB : MIB + 10])
    for elsewhere in (url.replace(job_id, "job_other"), url.replace("X-Amz-Expires=300", "X-Amz-Expires=90000")):
        assert httpx.get(elsewhere).status_code == 403
    direct = api.http.get(file["url"])
    assert (direct.status_code, len(direct.content)) == (200, len(CONTENT))
    missing = api.http.get(f"/jobs/{job_id}/artifact/files/nope", params={"redirect": "true"})
    assert missing.status_code == 404


def test_no_address_leads_to_an_object_that_is_gone(api: RunningApi, job_id: str) -> None:
    (file,) = api.http.get(f"/jobs/{job_id}/artifact").json()["files"]
    (key,) = (info.key for info in api.backend.store.list(keys.ROOT) if info.key.endswith(NAME))
    content = api.backend.store.get_bytes(key)
    api.backend.store.delete(key)
    try:
        answer = api.http.get(file["url"], params={"redirect": "true"})
    finally:
        api.backend.store.put_bytes(key, content)
    assert (answer.status_code, answer.json()["code"]) == (503, "object-missing")
    kinds = [event["kind"] for event in api.http.get(f"/jobs/{job_id}/events").json()["data"]]
    assert kinds.count("object_damaged") == 1


def test_a_download_cut_off_five_times_ends_byte_identical(api: RunningApi, job_id: str, tmp_path: Path) -> None:
    with Relay(api.url) as relay, Client(relay.url) as client:
        num_cuts = 0

        def cut_each_connection(num_bytes: int) -> None:
            nonlocal num_cuts
            if num_cuts < min(5, relay.num_connections):  # what a connection had on its way still comes after a cut
                num_cuts += 1
                relay.cut()

        client.jobs.download(job_id, tmp_path / "policy", on_progress=cut_each_connection)
        assert relay.num_connections == 6
    assert num_cuts == 5
    assert (tmp_path / "policy" / NAME).read_bytes() == CONTENT


def test_presigned_addresses_name_the_store_as_clients_reach_it(s3: S3Server) -> None:
    access = S3Access(
        bucket="policies",
        endpoint_url=s3.endpoint_url,
        public_endpoint_url="https://objects.example.org",
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key,
    )
    store = S3ObjectStore(access)
    store.put_bytes("a/b", b"content")  # goes where the service reaches the store
    url = store.download_url("a/b", filename="b", seconds=60)
    assert url is not None
    assert url.startswith("https://objects.example.org/policies/a/b?")
