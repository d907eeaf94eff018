"""Downloads of the tuned policy: files, ranges, the tar stream, and the client's own resuming download."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi
from backends import PROJECT, checkpoint_with_policy, claim, point

from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts import lifecycle, recording
from core.services.attempts.lifecycle import Publication
from core.services.jobs import events
from core.storage import keys
from preftune import ApiError, Client, DownloadFailed

FILES = {
    "model.safetensors": bytes(range(256)) * 5000,
    "adapter/adapter model ü.safetensors": b"a" * 511,
    "README.md": b"",
    "deep/" + "x" * 120 + "/file": b"long names need a PAX header",
}


@pytest.fixture(scope="module")
def job_id(api: RunningApi) -> str:
    job = api.submit()
    held = claim(api.backend)
    prefix = keys.artifact_prefix(held.project_id, held.job_id, held.attempt_name)
    published = []
    for path, content in FILES.items():
        api.backend.store.put_bytes(prefix + path, content)
        digest = hashlib.sha256(content).hexdigest()
        published.append(StoredFile(path=path, key=prefix + path, num_bytes=len(content), sha256=digest))
    tree = StoredTree(prefix=prefix, manifest_sha256="3" * 64)
    lifecycle.finish_succeeded(held, Publication(tree=tree, files=published))
    return str(job["id"])


@pytest.fixture(scope="module")
def listed(api: RunningApi, job_id: str) -> dict[str, Any]:
    artifact: dict[str, Any] = api.http.get(f"/jobs/{job_id}/artifact").json()
    return artifact


def url_of(listed: dict[str, Any], path: str) -> str:
    return str(next(file["url"] for file in listed["files"] if file["path"] == path))


def test_the_list_and_every_file(api: RunningApi, listed: dict[str, Any], job_id: str) -> None:
    assert {file["path"]: file["num_bytes"] for file in listed["files"]} == {
        path: len(content) for path, content in FILES.items()
    }
    assert (listed["job_id"], listed["manifest_sha256"]) == (job_id, "3" * 64)
    assert "key" not in listed["files"][0]  # where it lies in the store is nobody's business
    for path, content in FILES.items():
        response = api.http.get(url_of(listed, path))
        assert response.status_code == 200, response.text
        assert response.content == content
        assert response.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert response.headers["content-length"] == str(len(content))
        assert response.headers["content-disposition"].startswith("attachment;")
        straight = api.http.get(url_of(listed, path), params={"redirect": "true"})  # a folder has no addresses
        assert (straight.status_code, straight.content) == (200, content)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-", 1000, None),
        ("bytes=-7", -7, None),
        ("bytes=300000-299999999", 300_000, None),
        ("bytes=-999999999", 0, None),
    ],
)
def test_ranges(api: RunningApi, listed: dict[str, Any], header: str, start: int, end: int | None) -> None:
    content = FILES["model.safetensors"]
    response = api.http.get(url_of(listed, "model.safetensors"), headers={"Range": header})
    assert response.status_code == 206
    assert response.content == content[start:end]
    first = start % len(content)
    last = first + len(response.content) - 1
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"


def test_ranges_outside_are_refused_and_odd_ones_ignored(api: RunningApi, listed: dict[str, Any]) -> None:
    url, content = url_of(listed, "model.safetensors"), FILES["model.safetensors"]
    for header in (f"bytes={len(content)}-", "bytes=-0"):
        refused = api.http.get(url, headers={"Range": header})
        assert (refused.status_code, refused.json()["code"]) == (416, "range-not-satisfiable")
        assert refused.headers["content-range"] == f"bytes */{len(content)}"
    for header in ("bytes=5-1", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=a-b"):
        whole = api.http.get(url, headers={"Range": header})
        assert (whole.status_code, len(whole.content)) == (200, len(content))
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    same = api.http.get(url, headers={"Range": "bytes=0-9", "If-Range": etag})
    other = api.http.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)
    assert api.http.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert api.http.get(url_of(listed, "README.md"), headers={"Range": "bytes=0-"}).status_code == 416


def test_a_head_is_the_answer_without_its_body(api: RunningApi, listed: dict[str, Any]) -> None:
    for url in (url_of(listed, "model.safetensors"), listed["archive_url"], "/variants", "/docs", "/nope"):
        head, whole = api.http.head(url), api.http.get(url)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        for name in ("content-length", "content-type", "etag"):
            if url != "/nope":
                assert head.headers.get(name) == whole.headers.get(name), (url, name)
    assert api.http.head(url_of(listed, "model.safetensors"), headers={"Range": "bytes=0-0"}).status_code == 206


def test_the_archive_is_one_folder_and_the_same_every_time(
    api: RunningApi, job_id: str, listed: dict[str, Any]
) -> None:
    response = api.http.get(listed["archive_url"])
    assert int(response.headers["content-length"]) == len(response.content)
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f"{job_id}/{file['path']}" for file in listed["files"]]
        for member in members:
            file = archive.extractfile(member)
            assert file is not None
            assert file.read() == FILES[member.name.removeprefix(f"{job_id}/")]
    assert api.http.get(listed["archive_url"]).content == response.content


def test_what_is_not_there(api: RunningApi, job_id: str) -> None:
    unfinished = api.submit()["id"]
    for suffix in ("", "/archive", "/files/model.safetensors"):
        assert api.http.get(f"/jobs/{unfinished}/artifact{suffix}").json()["code"] == "artifact-not-found"
    for path in ("../model.safetensors", "%2e%2e/%2e%2e/preftune.db", "nope", "/etc/passwd"):
        response = api.http.get(f"/jobs/{job_id}/artifact/files/{path}")
        assert response.status_code == 404, path


def test_a_damaged_store_never_looks_like_a_whole_file(api: RunningApi, job_id: str, listed: dict[str, Any]) -> None:
    path = "README.md"
    stored = next(p for p in (api.settings.data_dir / "objects").rglob(path))
    assert stored.read_bytes() == FILES[path]
    objects = api.settings.data_dir / "objects"
    weights = next(objects.rglob("model.safetensors"))
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:1000])
        short = api.http.get(url_of(listed, "model.safetensors"))
        assert (short.status_code, short.json()["code"]) == (503, "object-damaged")
        weights.unlink()
        missing = api.http.get(url_of(listed, "model.safetensors"))
        assert (missing.status_code, missing.json()["code"]) == (503, "object-missing")
    finally:
        weights.write_bytes(whole)


def test_the_client_downloads_all_of_it(api: RunningApi, job_id: str, tmp_path: Path) -> None:
    partial = tmp_path / "policy" / "model.safetensors.part"
    partial.parent.mkdir()
    partial.write_bytes(FILES["model.safetensors"][:123_456])  # of a download that broke off
    with Client(api.url) as client:
        folder = client.jobs.download(job_id, tmp_path / "policy")
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == FILES


def test_a_corrupted_object_is_refused_by_the_client_and_reported_by_the_service(
    api: RunningApi, job_id: str, tmp_path: Path
) -> None:
    weights = next((api.settings.data_dir / "objects").rglob("model.safetensors"))
    whole = weights.read_bytes()
    damaged = bytearray(whole)
    damaged[600_000] ^= 1
    try:
        weights.write_bytes(damaged)
        with pytest.raises(httpx.RemoteProtocolError):  # the last chunk never comes
            api.http.get(f"/jobs/{job_id}/artifact/files/model.safetensors")
        with Client(api.url) as client, pytest.raises(DownloadFailed, match="SHA-256"):
            client.jobs.download(job_id, tmp_path / "policy")
        assert not (tmp_path / "policy" / "model.safetensors").exists()
    finally:
        weights.write_bytes(whole)
    told = [event for event in events.list_events(api.backend, PROJECT, job_id) if event.kind == "object_damaged"]
    assert [(event.level, event.data["path"]) for event in told] == [("error", "model.safetensors")]


def test_a_small_corrupted_object_gives_a_problem(api: RunningApi, job_id: str, listed: dict[str, Any]) -> None:
    path = "adapter/adapter model ü.safetensors"
    stored = next((api.settings.data_dir / "objects").rglob("adapter model*"))
    try:
        stored.write_bytes(b"b" * 511)
        response = api.http.get(url_of(listed, path))
        assert (response.status_code, response.json()["code"]) == (503, "object-damaged")
    finally:
        stored.write_bytes(FILES[path])


def test_a_checkpoint_is_listed_and_comes_as_a_folder(api: RunningApi, tmp_path: Path) -> None:
    job_id = api.submit()["id"]
    held = claim(api.backend)
    while held.job_id != job_id:  # what other tests have left queued
        held = claim(api.backend)
    lifecycle.begin(held)
    files = {"model.safetensors": b"weights", "adapter/adapter_config.json": b"{}"}
    recording.record_points(held, [point(4, 0.25, split="validation")])
    checkpoint_id = checkpoint_with_policy(api.backend, held, 4, files)
    with Client(api.url) as client:
        (listed,) = client.jobs.checkpoints(job_id)
        assert (listed["id"], listed["stage"], listed["step"]) == (checkpoint_id, "dpo", 4)
        assert (listed["is_best"], listed["is_resumable"], listed["metrics"]["loss"]) == (True, True, 0.25)
        assert listed["archive_url"] == f"/jobs/{job_id}/checkpoints/{checkpoint_id}/archive"
        folder = client.jobs.download_checkpoint(job_id, checkpoint_id, tmp_path / "policy")
        found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert found.pop("SHA256SUMS").count(b"\n") == 2
        assert found == files
        with pytest.raises(ApiError) as refusal:
            client.jobs.download_checkpoint(job_id, "ckpt_none", tmp_path / "none")
        assert refusal.value.code == "checkpoint-not-found"
    lifecycle.finish_succeeded(held, Publication(tree=StoredTree(prefix="x/", manifest_sha256="4" * 64), files=[]))
