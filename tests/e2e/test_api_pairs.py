"""The report on pairs over HTTP, and the job again with some of them changed."""

import csv
import hashlib
import io
import json
from typing import Any

import pytest
from api_server import RunningApi
from backends import claim

from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts import lifecycle
from core.services.attempts.lifecycle import Publication
from core.storage import keys
from preftune import ApiError, Client

MARGINS = (0.5, -1.0, None, 2.0, 0.1)


def pair(line: int, margin: float | None, *flags: str) -> dict[str, Any]:
    return {
        "line": line,
        "split": "train" if line < 5 else "validation",
        "reference_margin": None,
        "margin_first": margin,
        "margin_last": margin,
        "chosen_reward": margin,
        "rejected_reward": 0.0,
        "gradient_weight": 0.5,
        "length_difference": line - 3,
        "mislabelled_score": None if margin is None else -margin,
        "flags": list(flags),
    }


PAIRS = [pair(n, margin, *(["never_learned"] if margin == -1.0 else [])) for n, margin in enumerate(MARGINS, 1)]


@pytest.fixture(scope="module")
def job_id(api: RunningApi) -> str:
    job = api.submit(dpo={"epochs": 2}, exclude_lines=[9], swap_lines=[4, 5])
    held = claim(api.backend)
    prefix = keys.artifact_prefix(held.project_id, held.job_id, held.attempt_name)
    content = "".join(json.dumps(item) + "\n" for item in PAIRS).encode()
    api.backend.store.put_bytes(prefix + "pairs.jsonl", content)
    digest = hashlib.sha256(content).hexdigest()
    file = StoredFile(path="pairs.jsonl", key=prefix + "pairs.jsonl", num_bytes=len(content), sha256=digest)
    tree = StoredTree(prefix=prefix, manifest_sha256="3" * 64)
    lifecycle.finish_succeeded(held, Publication(tree=tree, files=[file]))
    return str(job["id"])


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("?sort=margin", [2, 5, 1, 4, 3]),  # unknown ones last
        ("?sort=-margin", [4, 1, 5, 2, 3]),
        ("?sort=-mislabelled_score", [2, 5, 1, 4, 3]),
        ("?flag=never_learned", [2]),
        ("?flag=forgotten", []),
        ("?split=validation", [5]),
    ],
)
def test_sorted_and_filtered(api: RunningApi, job_id: str, query: str, lines: list[int]) -> None:
    page = api.http.get(f"/jobs/{job_id}/pairs{query}").json()
    assert [item["line"] for item in page["data"]] == lines
    assert page["data"] == [PAIRS[line - 1] for line in lines]
    assert page["next_cursor"] is None


def test_pages_and_whole_files(api: RunningApi, job_id: str) -> None:
    with Client(api.url) as client:
        page = client.jobs.pairs(job_id, sort="margin", limit=2)
        rest = client.jobs.pairs(job_id, sort="margin", limit=2, cursor=page["next_cursor"])
        assert [item["line"] for item in page["data"] + rest["data"]] == [2, 5, 1, 4]
        assert [item["line"] for item in client.jobs.all_pairs(job_id)] == [1, 2, 3, 4, 5]
    for query in ("format=jsonl&sort=margin", "format=csv&flag=never_learned"):
        name, _, rest = query.removeprefix("format=").partition("&")
        as_before = api.http.get(f"/jobs/{job_id}/pairs?{query}")
        assert api.http.get(f"/jobs/{job_id}/pairs.{name}?{rest}").content == as_before.content
    lines = api.http.get(f"/jobs/{job_id}/pairs.jsonl?sort=margin").text.splitlines()
    assert [json.loads(line) for line in lines] == [PAIRS[n] for n in (1, 4, 0, 3, 2)]
    response = api.http.get(f"/jobs/{job_id}/pairs.csv?flag=never_learned")
    assert response.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(response.text))
    assert (row["line"], row["margin_last"], row["reference_margin"], row["flags"]) == (
        "2",
        "-1.0",
        "",
        "never_learned",
    )


def test_faulty_questions(api: RunningApi, job_id: str) -> None:
    for query in ("?sort=nope", "?flag=nope", "?cursor=nope", "?limit=0", "?format=xml"):
        response = api.http.get(f"/jobs/{job_id}/pairs{query}")
        assert response.status_code in (400, 422), (query, response.text)
    unfinished = api.submit()["id"]
    assert api.http.get(f"/jobs/{unfinished}/pairs").json()["code"] == "artifact-not-found"


def test_the_job_again_with_pairs_changed(api: RunningApi, job_id: str) -> None:
    with Client(api.url) as client:
        job = client.jobs.rerun(job_id, exclude_lines=[2], swap_lines=[5, 7])
        assert job["source_job_id"] == job_id
        assert job["status"] == "queued"
        assert (job["spec"]["exclude_lines"], job["spec"]["swap_lines"]) == ([2, 9], [4, 7])  # 5 is as uploaded again
        assert job["spec"]["dpo"]["epochs"] == 2
        with pytest.raises(ApiError) as refusal:
            client.jobs.rerun(job["id"], exclude_lines=[1])
        assert refusal.value.code == "job-not-rerunnable"
    both = api.http.post(
        "/jobs", json={"base_model": "tiny", "dataset_id": "ds_1", "exclude_lines": [1], "swap_lines": [1]}
    )
    assert both.status_code == 422
