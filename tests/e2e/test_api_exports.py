"""Exports over HTTP: asked for, listed, downloaded, refused; the lane's part is played by the test."""

import hashlib
import threading
import time
from pathlib import Path

import pytest
from api_server import RunningApi
from backends import claim, publication, set_architecture
from typer.testing import CliRunner

from cli.main import app
from core.domain.jobs.stored_files import StoredFile
from core.services.attempts import lifecycle
from core.services.requests import exports, requests
from preftune import Client, ExportFailed

CONTENT = b"GGUF" + bytes(range(256)) * 500
VERIFICATION = {
    "num_tokens": 60,
    "mean_difference": 0.001,
    "max_difference": 0.01,
    "tolerance": 0.03,
    "context_length": 512,
    "end_token_ids": [2, 0],
}


def published(api: RunningApi, architecture: str) -> str:
    set_architecture(api.settings, architecture)
    job = api.submit(sft="skip", priority=100)
    held = claim(api.backend)
    assert held.job_id == job["id"]
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    return str(job["id"])


@pytest.fixture(scope="module")
def job_id(api: RunningApi) -> str:
    return published(api, "LlamaForCausalLM")


def make_next(api: RunningApi, content: bytes | None = CONTENT) -> None:
    """As a lane does; None: it fails."""
    deadline = time.monotonic() + 60
    while (held := exports.claim(api.backend, 60)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if content is None:
        requests.fail(api.backend, held.lease, "llama.cpp does not know how this tokenizer splits text.")
        return
    key = held.prefix + "policy.gguf"
    api.backend.store.put_bytes(key, content)
    digest = hashlib.sha256(content).hexdigest()
    file = StoredFile(path=held.path, key=key, num_bytes=len(content), sha256=digest)
    exports.finish(api.backend, held, file, VERIFICATION)


def test_asked_for_made_and_listed_among_the_files(api: RunningApi, job_id: str) -> None:
    response = api.http.post(f"/jobs/{job_id}/exports", json={"format": "gguf-f16"})
    assert response.status_code == 202, response.text
    asked = response.json()
    assert (asked["status"], asked["url"], asked["verification"]) == ("queued", None, None)
    assert response.headers["location"] == f"/jobs/{job_id}/exports/{asked['id']}"
    again = api.http.post(f"/jobs/{job_id}/exports", json={"format": "gguf-f16"})
    assert (again.status_code, again.json()["id"]) == (202, asked["id"])
    lane = threading.Thread(target=make_next, args=(api,))
    lane.start()
    done = api.http.get(response.headers["location"], params={"wait": 25}).json()
    lane.join()
    assert (done["status"], done["verification"]) == ("succeeded", VERIFICATION)
    files = {file["path"]: file for file in api.http.get(f"/jobs/{job_id}/artifact").json()["files"]}
    assert files[done["path"]]["url"] == done["url"]
    assert api.http.get(done["url"]).content == CONTENT
    assert api.http.get(f"/jobs/{job_id}/exports").json()["data"] == [done]
    archive = api.http.get(f"/jobs/{job_id}/artifact/archive").content
    assert b"model.safetensors" in archive
    assert b"gguf" not in archive


def test_the_command_fetches_it_and_a_download_of_the_policy_leaves_it_out(
    api: RunningApi, job_id: str, tmp_path: Path
) -> None:
    lane = threading.Thread(target=make_next, args=(api,))
    lane.start()
    result = CliRunner().invoke(app, ["export", job_id, "gguf-q8_0", str(tmp_path / "out"), "--url", api.url])
    lane.join()
    assert result.exit_code == 0, result.output
    target = tmp_path / "out" / f"{job_id}.q8_0.gguf"
    assert str(target) in result.output.splitlines()
    assert target.read_bytes() == CONTENT
    with Client(api.url) as client:
        folder = client.jobs.download(job_id, tmp_path / "policy")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["model.safetensors"]


def test_what_cannot_be_exported(api: RunningApi, job_id: str) -> None:
    for body in ({}, {"format": "gguf"}, {"format": "gguf-f16", "split": 2}):
        assert api.http.post(f"/jobs/{job_id}/exports", json=body).status_code == 422
    other = published(api, "OddForCausalLM")
    refused = api.http.post(f"/jobs/{other}/exports", json={"format": "gguf-f16"})
    assert (refused.status_code, refused.json()["code"]) == (422, "export-not-supported")
    assert "OddForCausalLM" in refused.json()["detail"]
    unfinished = api.submit()["id"]
    refused = api.http.post(f"/jobs/{unfinished}/exports", json={"format": "gguf-f16"})
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing-to-export")
    missing = api.http.get(f"/jobs/{job_id}/exports/export_none")
    assert (missing.status_code, missing.json()["code"]) == (404, "export-not-found")


def test_the_client_says_why_it_failed(api: RunningApi) -> None:
    job_id = published(api, "GPT2LMHeadModel")
    lane = threading.Thread(target=make_next, args=(api, None))
    lane.start()
    with Client(api.url) as client:
        with pytest.raises(ExportFailed, match="tokenizer"):
            client.jobs.export(job_id, "gguf-f16")
        lane.join()
        (failed,) = client.jobs.exports(job_id)
    assert (failed["status"], failed["url"]) == ("failed", None)
