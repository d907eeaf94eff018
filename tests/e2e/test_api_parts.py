"""`/uploads`: a file in parts, resumed where it stopped, whole or not at all, and gone when nobody goes on."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, pairs, pointers, serve
from backends import PROJECT
from sqlalchemy import update

import preftune.datasets
from core.clock import utc_now
from core.database.tables.uploads import Upload
from core.services.datasets import parts
from core.services.operations import garbage_collection
from preftune import ApiError, Client, UploadInterrupted

FILE = pairs(40)
PARTS = [FILE[:1000], FILE[1000:2500], FILE[2500:]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("small")), max_upload_bytes=1_000_000) as running:
        yield running


def announce(api: RunningApi, num_bytes: int = len(FILE), **fields: Any) -> dict[str, Any]:
    response = api.http.post("/uploads", json={"num_bytes": num_bytes, "filename": "pairs.jsonl"} | fields)
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"/uploads/{response.json()['id']}"
    upload: dict[str, Any] = response.json()
    return upload


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(api: RunningApi, upload: dict[str, Any], number: int, content: bytes, digest: str | None = None) -> Any:
    params = {"sha256": digest or sha256(content)}
    return api.http.put(f"/uploads/{upload['id']}/parts/{number}", params=params, content=content)


def complete(api: RunningApi, upload: dict[str, Any], **headers: str) -> httpx.Response:
    return api.http.post(f"/uploads/{upload['id']}/complete", headers=headers)


def stored(api: RunningApi) -> list[Path]:
    folder = api.settings.data_dir / "objects" / "projects" / PROJECT / "uploads"
    return sorted(path for path in folder.rglob("*") if path.is_file())


def collect(api: RunningApi) -> None:
    parts.let_go_of_expired(api.backend)
    garbage_collection.collect(api.backend)


def test_parts_in_any_order_become_the_data_set(api: RunningApi) -> None:
    upload = announce(api, sha256=sha256(FILE), name="large", metadata={"team": "a"})
    assert (upload["status"], upload["parts"], upload["part_bytes"]) == ("open", [], 8 * 1024**2)
    for number in (3, 1):
        assert put(api, upload, number, PARTS[number - 1]).status_code == 200
    digest = base64.b64encode(hashlib.sha256(PARTS[1]).digest()).decode()
    headers = {"Content-Digest": f"sha-256=:{digest}:"}
    by_header = api.http.put(f"/uploads/{upload['id']}/parts/2", content=PARTS[1], headers=headers)
    assert by_header.json() == {"number": 2, "num_bytes": 1500, "sha256": sha256(PARTS[1])}

    seen = api.http.get(f"/uploads/{upload['id']}").json()
    assert [(part["number"], part["num_bytes"]) for part in seen["parts"]] == [(1, 1000), (2, 1500), (3, len(PARTS[2]))]
    assert seen["num_received_bytes"] == seen["num_bytes"] == len(FILE)

    done = complete(api, upload)
    assert done.status_code == 201, done.text
    dataset = done.json()
    assert (dataset["name"], dataset["num_accepted"], dataset["metadata"]) == ("large", 40, {"team": "a"})
    assert dataset["sha256"] == sha256(FILE)
    assert api.http.get(f"/datasets/{dataset['id']}/content").content == FILE

    assert complete(api, upload).json() == dataset
    closed = put(api, upload, 1, PARTS[0])
    assert (closed.status_code, closed.json()["code"]) == (409, "upload-completed")
    assert api.http.get(f"/uploads/{upload['id']}").json()["dataset_id"] == dataset["id"]
    collect(api)
    assert stored(api) == []
    assert [path for path in api.settings.scratch_dir.rglob("*") if path.is_file() and path.name != "lock"] == []


def test_completed_later(api: RunningApi) -> None:
    upload = announce(api)
    put(api, upload, 1, FILE)
    response = complete(api, upload, Prefer="respond-async")
    assert (response.status_code, response.json()["status"]) == (202, "processing")
    assert complete(api, upload).json()["id"] == response.json()["id"]


def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    with serve(tmp_path) as first:
        upload = announce(first)
        put(first, upload, 1, PARTS[0])
    with serve(tmp_path) as second:
        assert [part["number"] for part in second.http.get(f"/uploads/{upload['id']}").json()["parts"]] == [1]
        put(second, upload, 2, PARTS[1])
        put(second, upload, 3, PARTS[2])
        assert complete(second, upload).json()["num_accepted"] == 40


def test_bytes_that_are_not_those_announced_are_refused(api: RunningApi) -> None:
    upload = announce(api, sha256="0" * 64)
    wrong = put(api, upload, 1, PARTS[0], digest=sha256(b"other"))
    assert (wrong.status_code, wrong.json()["code"]) == (422, "checksum-mismatch")
    assert pointers(wrong) == ["/sha256"]
    assert api.http.get(f"/uploads/{upload['id']}").json()["parts"] == []
    without = api.http.put(f"/uploads/{upload['id']}/parts/1", content=PARTS[0])
    assert (without.status_code, pointers(without)) == (422, ["/sha256"])
    put(api, upload, 1, FILE)
    whole = complete(api, upload)
    assert (whole.status_code, whole.json()["code"]) == (422, "checksum-mismatch")


def test_what_is_missing_is_named(api: RunningApi) -> None:
    upload = announce(api)
    put(api, upload, 1, PARTS[0])
    short = complete(api, upload)
    assert (short.status_code, short.json()["code"]) == (409, "upload-incomplete")
    assert "send the parts from 2 on" in short.json()["detail"]
    put(api, upload, 3, PARTS[2])
    assert "missing: 2" in complete(api, upload).json()["detail"]


def test_a_part_sent_again_replaces_the_first(api: RunningApi) -> None:
    upload = announce(api)
    put(api, upload, 1, b"x" * 1000)
    for number, content in enumerate(PARTS, 1):
        put(api, upload, number, content)
    assert len([path for path in stored(api) if upload["id"] in path.parts]) == 3
    assert complete(api, upload).json()["sha256"] == sha256(FILE)


def test_parts_stay_as_they_are_while_they_are_put_together(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = announce(api)
    for number, content in enumerate(PARTS, 1):
        put(api, upload, number, content)
    met: list[Any] = []
    read = api.backend.store.read

    def meddle(key: str, *bounds: Any) -> Any:
        if "/uploads/" in key and not met:
            met.append(put(api, upload, 2, PARTS[0]))
            met.append(complete(api, upload))
        return read(key, *bounds)

    monkeypatch.setattr(api.backend.store, "read", meddle)
    made = complete(api, upload)
    assert [(one.status_code, one.json()["code"]) for one in met] == [(503, "upload-assembling")] * 2
    assert all(one.headers["retry-after"] for one in met)
    assert made.status_code == 201, made.text
    assert made.json()["sha256"] == sha256(FILE)
    assert complete(api, upload).json()["id"] == made.json()["id"]


def test_a_process_that_dies_while_it_puts_parts_together_leaves_them_to_the_next(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = announce(api)
    for number, content in enumerate(PARTS, 1):
        put(api, upload, number, content)
    held = {"assembler": "dead", "assembling_until": utc_now() + timedelta(minutes=2)}
    api.backend.database.write(lambda session: session.execute(update(Upload).values(held)))
    assert complete(api, upload).status_code == 503
    held["assembling_until"] = utc_now() - timedelta(seconds=1)
    api.backend.database.write(lambda session: session.execute(update(Upload).values(held)))
    assert complete(api, upload).json()["sha256"] == sha256(FILE)


def test_no_more_than_announced_is_kept(api: RunningApi, small: RunningApi) -> None:
    upload = announce(api, 1500)
    put(api, upload, 1, PARTS[0])
    beyond = put(api, upload, 2, PARTS[1])
    assert (beyond.status_code, beyond.json()["code"]) == (422, "invalid-request")
    assert len([path for path in stored(api) if upload["id"] in path.parts]) == 1
    assert put(api, upload, 2, b"").status_code == 422
    for number in ("0", "1001", "-1", "x"):
        response = api.http.put(f"/uploads/{upload['id']}/parts/{number}", params={"sha256": "0" * 64}, content=b"a")
        assert response.status_code == 422
    large = small.http.post("/uploads", json={"num_bytes": 1_000_001})
    assert (large.status_code, large.json()["code"]) == (413, "announced-too-large")
    endless = (bytes(1024**2) for _ in range(65))
    part = api.http.put(f"/uploads/{upload['id']}/parts/2", params={"sha256": "0" * 64}, content=endless)
    assert (part.status_code, part.json()["code"]) == (413, "body-too-large")


def test_an_unknown_upload_and_wrong_options(api: RunningApi) -> None:
    for response in (
        api.http.get("/uploads/upl_none"),
        api.http.delete("/uploads/upl_none"),
        api.http.post("/uploads/upl_none/complete"),
        api.http.put("/uploads/upl_none/parts/1", params={"sha256": "0" * 64}, content=b"a"),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "upload-not-found")
    for body, pointer in (
        ({}, "/num_bytes"),
        ({"num_bytes": 0}, "/num_bytes"),
        ({"num_bytes": 1, "sha256": "x"}, "/sha256"),
        ({"num_bytes": 1, "format": "mystery"}, "/format"),
        ({"num_bytes": 1, "kind": "pairs"}, "/kind"),
    ):
        response = api.http.post("/uploads", json=body)
        assert (response.status_code, pointers(response)) == (422, [pointer])


def test_announcing_under_a_key_happens_once(api: RunningApi) -> None:
    headers = {"Idempotency-Key": "announce-once"}
    first, second = (api.http.post("/uploads", json={"num_bytes": 5}, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]


def test_a_refused_file_leaves_no_upload(api: RunningApi) -> None:
    content = pairs() + b"not json\n"
    upload = announce(api, len(content))
    put(api, upload, 1, content)
    before = api.http.get("/datasets").json()
    refused = complete(api, upload)
    assert (refused.status_code, refused.json()["code"]) == (422, "dataset-rejected")
    assert [issue["line"] for issue in refused.json()["report"]["issues"]] == [4]
    assert pointers(refused) == ["/file"]
    assert api.http.get(f"/uploads/{upload['id']}").status_code == 404
    assert api.http.get("/datasets").json() == before
    collect(api)
    assert not [path for path in stored(api) if upload["id"] in path.parts]


def test_an_abandoned_upload_is_let_go_of(api: RunningApi) -> None:
    gone, kept = announce(api), announce(api)
    for upload in (gone, kept):
        put(api, upload, 1, PARTS[0])
    past = update(Upload).where(Upload.id == gone["id"]).values(expires_at=utc_now() - timedelta(seconds=1))
    api.backend.database.write(lambda session: session.execute(past))
    collect(api)
    assert api.http.get(f"/uploads/{gone['id']}").status_code == 404
    assert api.http.get(f"/uploads/{kept['id']}").status_code == 200
    assert {path.parent.name for path in stored(api)} & {gone["id"], kept["id"]} == {kept["id"]}
    assert api.http.delete(f"/uploads/{kept['id']}").status_code == 204
    collect(api)
    assert not [path for path in stored(api) if kept["id"] in path.parts]


def test_only_so_many_are_open(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    announce(api)
    monkeypatch.setattr(parts, "MAX_OPEN_UPLOADS", 1)
    response = api.http.post("/uploads", json={"num_bytes": 5})
    assert (response.status_code, response.json()["code"]) == (409, "too-many-uploads")


def test_the_client_sends_large_files_in_parts_and_goes_on(
    api: RunningApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preftune.datasets, "IN_PARTS_FROM_BYTES", 1000)
    monkeypatch.setattr(parts, "part_bytes", lambda num_bytes: 700)
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(FILE)
    with Client(api.url) as client:
        sent: list[int] = []
        direct = client.datasets.upload(path, on_progress=sent.append, metadata={"a": "b"})
        assert (direct["num_accepted"], direct["metadata"], sum(sent)) == (40, {"a": "b"}, len(FILE))

        numbers: list[str] = []
        put_whole = client._transport.put

        def put_or_break(address: str, content: bytes, **params: Any) -> Any:
            numbers.append(address.rpartition("/")[2])
            if numbers == ["1", "2", "3"]:
                raise preftune.ConnectionFailed("the line is cut")
            return put_whole(address, content, **params)

        monkeypatch.setattr(client._transport, "put", put_or_break)
        with pytest.raises(UploadInterrupted) as broken:
            client.datasets.upload(path)
        dataset = client.datasets.upload(path, upload_id=broken.value.upload_id)
        assert numbers[:5] == ["1", "2", "3", "3", "4"]
        assert dataset["sha256"] == sha256(FILE)
        assert client.datasets.upload(path, upload_id=broken.value.upload_id)["id"] == dataset["id"]

        path.write_bytes(FILE + b"not json\n")
        with pytest.raises(ApiError) as refused:
            client.datasets.upload(path)
        assert refused.value.problem["report"]["issues"][0]["line"] == 41
