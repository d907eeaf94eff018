"""Files and jobs under `/v1`, down to what OpenAI's clients rely on: see docs/evidence/openai.md."""

import base64
import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, pairs, serve
from backends import BASE_MODEL, claim, point, publication
from sqlalchemy.orm import Session
from tiny_models import write_tiny_tokenizer

from core.database.tables.datasets import Dataset
from core.services.attempts import lifecycle, recording
from core.services.datasets import template_fit

TOOL = {"type": "function", "function": {"name": "look_up", "description": "Look.", "parameters": {"type": "object"}}}
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}],
}
WITH_TOOLS = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("openai")), wandb_project="ours") as running:
        write_tiny_tokenizer(running.settings.models_dir / BASE_MODEL)
        yield running


def row(number: int, tools: list[Any] | None = None, content: Any = None) -> dict[str, Any]:
    """A row of OpenAI's documented preference layout."""
    asked = content if content is not None else f"What is {number} plus one?"
    return {
        "input": {"messages": [{"role": "user", "content": asked}], "tools": tools or [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": f"It is {number + 1}."}],
        "non_preferred_output": [{"role": "assistant", "content": f"I guess {number}."}],
    }


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in rows).encode()


def in_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield from chunk.splitlines(keepends=True)


def send(api: RunningApi, content: bytes, **form: str) -> Any:
    answer = api.http.post("/v1/files", data={"purpose": "fine-tune"} | form, files={"file": ("p.jsonl", content)})
    return answer.json() | {"http": answer.status_code}


def create(api: RunningApi, file_id: str, **body: Any) -> Any:
    asked = {"model": BASE_MODEL, "training_file": file_id, "method": {"type": "dpo"}} | body
    answer = api.http.post("/v1/fine_tuning/jobs", json=asked)
    return answer.json() | {"http": answer.status_code}


def test_a_file_tells_when_it_goes(api: RunningApi) -> None:
    form = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = send(api, pairs(), **form)
    assert file["expires_at"] == pytest.approx(file["created_at"] + 3600, abs=1)
    assert api.http.get(f"/v1/files/{file['id']}").json()["expires_at"] == file["expires_at"]
    assert api.http.get(f"/datasets/{file['id']}").json()["expires_at"]
    assert send(api, pairs())["expires_at"] is None


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "an hour"}, "expires_after.seconds"),
        ({"expires_after[days]": "3"}, "expires_after[days]"),
        ({"purpose": "assistants"}, "purpose"),
    ],
)
def test_a_wish_that_cannot_be_honoured_is_named(api: RunningApi, form: dict[str, str], param: str) -> None:
    refused = send(api, pairs(), **form)
    assert (refused["http"], refused["error"]["param"]) == (400, param), refused
    upload = {"bytes": 9, "filename": "p", "mime_type": "a/b", "purpose": "fine-tune"}
    if param.startswith("expires_after."):
        given: dict[str, Any] = {name.split("[")[1][:-1]: text for name, text in form.items()}
        given |= {"seconds": int(given["seconds"])} if given.get("seconds", "x").isdigit() else {}
        answer = api.http.post("/v1/uploads", json=upload | {"expires_after": given})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_a_bad_file_says_where_with_the_address_of_the_whole_report(api: RunningApi) -> None:
    broken = [b"not json\n", lines({"prompt": "no answers"}), lines(row(1) | {"preferred_output": []})] * 3
    file = send(api, lines(*map(row, range(12))) + b"".join(broken))
    assert (file["http"], file["status"]) == (200, "error")
    told = file["status_details"]
    assert all(f"Line {number}:" in told for number in range(13, 18)), told
    assert "Line 18:" not in told, told
    report = told.split("GET ")[1].rstrip(".")
    assert report == file["report_url"]
    found = api.http.get(report, params={"limit": 100}).json()["data"]
    assert {issue["line"] for issue in found if issue["line"]} == set(range(13, 22))
    refused = create(api, file["id"])
    assert (refused["http"], refused["error"]["param"]) == (400, "training_file")
    assert refused["error"]["code"] == "invalid_training_file"


def test_an_image_ends_in_an_error_that_names_its_line(api: RunningApi) -> None:
    picture = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
    ]
    file = send(api, lines(*map(row, range(12)), row(12, content=picture)))
    assert (file["status"], "Line 13:" in file["status_details"]) == ("error", True), file
    assert "image" in file["status_details"]


def test_fewer_than_ten_examples_are_a_warning(api: RunningApi) -> None:
    file = send(api, lines(*map(row, range(9))))
    assert (file["status"], file["num_accepted"]) == ("processed", 9)
    assert any("fewer than 10" in warning for warning in file["warnings"])
    job = create(api, file["id"])
    assert job["http"] == 200, job
    many = send(api, lines(*map(row, range(10))))
    assert not any("fewer than 10" in warning for warning in many["warnings"])
    api.http.post(f"/jobs/{job['id']}/cancel")


def test_tools_that_the_template_cannot_render_are_refused_by_their_file(api: RunningApi) -> None:
    plain, tools = send(api, lines(*map(row, range(9)))), send(api, lines(row(1), row(2, [TOOL])))
    refused = create(api, tools["id"])
    assert (refused["http"], refused["error"]["param"]) == (400, "training_file"), refused
    assert f"line 2 of {tools['id']} holds tool definitions" in refused["error"]["message"]
    assert create(api, plain["id"], validation_file=tools["id"])["error"]["param"] == "validation_file"
    template = api.settings.models_dir / BASE_MODEL / "chat_template.jinja"
    usual = template.read_text()
    template.write_text(WITH_TOOLS)
    job = create(api, tools["id"])
    template.write_text(usual)
    assert job["http"] == 200, job
    api.http.post(f"/jobs/{job['id']}/cancel")


def test_the_check_of_a_file_notes_its_tools_so_that_no_request_reads_it(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = send(api, lines(row(1), row(2), row(3, [TOOL])))["id"]
    calls = send(api, lines(row(1), row(2) | {"preferred_output": [CALLING]}))["id"]
    found = [api.http.get(f"/datasets/{each}").json()["report"]["statistics"]["first_lines"] for each in (tools, calls)]
    assert found == [{"tools": 3}, {"tool_calls": 2}]
    monkeypatch.setattr(template_fit, "read_stored", lambda *_: pytest.fail("the rows were read"))
    assert f"line 3 of {tools} holds tool definitions" in create(api, tools)["error"]["message"]


def test_a_dataset_of_an_earlier_check_is_searched_within_bounds(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked_earlier(number: int) -> str:
        file_id: str = send(api, lines(*(row(number + each) for each in range(9)), row(number, [TOOL])))["id"]

        def forget(session: Session) -> None:
            dataset = session.get_one(Dataset, file_id)
            statistics = {key: value for key, value in dataset.report["statistics"].items() if key != "first_lines"}
            dataset.report = dataset.report | {"statistics": statistics}

        api.backend.database.write(forget)
        return file_id

    file_id = checked_earlier(100)
    assert f"line 10 of {file_id} holds tool definitions" in create(api, file_id)["error"]["message"]
    usual = template_fit.read_stored
    monkeypatch.setattr(template_fit, "read_stored", lambda *of: in_lines(usual(*of)))
    for number, bound, value in ((200, "MAX_ROWS", 3), (300, "MAX_SECONDS", 0.0)):
        with monkeypatch.context() as patched:
            patched.setattr(template_fit, bound, value)
            job = create(api, checked_earlier(number))
        assert job["http"] == 200, job
        api.http.post(f"/jobs/{job['id']}/cancel")


def test_wandb_is_mapped_to_the_run_of_the_operators_project(api: RunningApi) -> None:
    file = send(api, pairs())
    run = {"project": "ours", "name": "first try", "tags": ["a", "b"]}
    job = create(api, file["id"], integrations=[{"type": "wandb", "wandb": run}])
    assert job["integrations"] == [{"type": "wandb", "wandb": run | {"entity": None}}], job
    assert job["spec"]["tracking"] == {"project": "ours", "run_name": "first try", "tags": ["a", "b"]}
    wishes: dict[str, list[Any]] = {
        "integrations.0.wandb.project": [{"type": "wandb", "wandb": {"project": "theirs"}}],
        "integrations.0.wandb.entity": [{"type": "wandb", "wandb": {"project": "ours", "entity": "them"}}],
        "integrations.0.type": [{"type": "comet", "wandb": {"project": "ours"}}],
        "integrations.0.wandb": [{"type": "wandb"}],
        "integrations.1": [{"type": "wandb", "wandb": {"project": "ours"}}] * 2,
    }
    for param, integrations in wishes.items():
        refused = create(api, file["id"], integrations=integrations)
        assert (refused["http"], refused["error"]["param"]) == (400, param), refused
    api.http.post(f"/jobs/{job['id']}/cancel")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, "method.type"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}, "method.dpo.hyperparameters.beta"),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": "all"}}}},
            "method.dpo.hyperparameters.n_epochs",
        ),
        ({"hyperparameters": {"n_epochs": 1}}, "hyperparameters"),
        ({"method": None}, "method"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}},
            "method.supervised.hyperparameters.beta",
        ),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo"),
        ({"method": {"type": "supervised"}, "dpo": {"epochs": 1}}, "dpo"),
        ({"method": {"type": "supervised"}, "sft": "skip"}, "sft"),
        (
            {
                "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
                "sft": {"epochs": 2},
            },
            "method.supervised.hyperparameters.n_epochs",
        ),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"metadata": {"k" * 65: "v"}}, "metadata." + "k" * 65),
        ({"n_epochs": 3}, "n_epochs"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(api: RunningApi, body: dict[str, Any], param: str) -> None:
    refused = create(api, send(api, pairs())["id"], **body)
    assert (refused["http"], refused["error"]["param"]) == (400, param), refused
    assert refused["error"]["code"]
    assert refused["error"]["message"]


@pytest.fixture(scope="module")
def finished(api: RunningApi) -> str:
    """A job with curves in which some values are missing, infinite or of other stages."""
    job = create(api, send(api, pairs())["id"])
    held = claim(api.backend)
    assert held.job_id == job["id"]
    lifecycle.begin(held)
    figures = {"rewards/accuracies": 0.5, "num_tokens": 100.0}
    recording.record_points(
        held,
        [
            point(1, stage="sft", num_tokens=7.0),
            point(1, 0.693, **figures),
            point(1, 0.7, split="validation"),
            point(2, math.nan, **figures | {"rewards/margins": math.inf}),
            point(3, 0.5, **figures),
        ],
    )
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    return held.job_id


def test_result_files_hold_numbers_and_empty_cells_only(api: RunningApi, finished: str) -> None:
    job = api.http.get(f"/v1/fine_tuning/jobs/{finished}").json()
    answer = api.http.get(f"/v1/files/{job['result_files'][0]}/content")
    assert answer.headers["content-type"].startswith("text/csv")
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header[:5] == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert [each[0] for each in rows] == ["1", "2", "3"]
    assert rows[0][1:5] == ["0.693", "0.5", "0.7", ""]
    assert rows[1][1] == ""
    assert all(math.isfinite(float(cell)) for each in rows for cell in each if cell)
    assert len({len(each) for each in [header, *rows]}) == 1
    assert api.http.get(f"/v1/files/{job['result_files'][0]}").json()["bytes"] == len(answer.content)


def test_a_finished_job_tells_how_many_tokens_it_was_trained_on(api: RunningApi, finished: str) -> None:
    assert api.http.get(f"/v1/fine_tuning/jobs/{finished}").json()["trained_tokens"] == 307
    assert api.http.get(f"/jobs/{finished}").json()["trained_tokens"] == 307
    queued = create(api, send(api, pairs())["id"])
    assert queued["trained_tokens"] is None
    api.http.post(f"/jobs/{queued['id']}/cancel")


def test_result_files_come_in_base64_where_the_operator_says_so(tmp_path: Path) -> None:
    with serve(tmp_path, openai_base64_results=True) as api:
        made = api.finish_job()
        file_id = api.http.get(f"/v1/fine_tuning/jobs/{made['job_id']}").json()["result_files"][0]
        content = api.http.get(f"/v1/files/{file_id}/content").content
        assert base64.b64decode(content, validate=True).startswith(b"step,train_loss,")
        assert api.http.get(f"/v1/files/{file_id}").json()["bytes"] == len(content)
        source = api.http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("p.jsonl", pairs())}).json()
        assert api.http.get(f"/v1/files/{source['id']}/content").content == pairs()


def everything(api: RunningApi, path: str, **params: str) -> list[str]:
    """Ids of a list, a page of one after the other, as the clients read it."""
    found: list[str] = []
    while True:
        after = {"after": found[-1]} if found else {}
        page = api.http.get(path, params=params | {"limit": "1"} | after).json()
        found += [item["id"] for item in page["data"]]
        if not page["has_more"]:
            return found
        assert page["data"], "an empty page that has more is asked for without end"
        assert len(found) < 200, "the list has no end"


def test_every_list_comes_to_its_end(api: RunningApi, finished: str) -> None:
    for _ in range(2):
        send(api, pairs())
    job = f"/v1/fine_tuning/jobs/{finished}"
    paths = ("/v1/files", "/v1/fine_tuning/jobs", f"{job}/events", f"{job}/checkpoints", "/v1/webhook_endpoints")
    for path in paths:
        ids = everything(api, path)
        assert len(set(ids)) == len(ids), path
    assert everything(api, "/v1/files", order="asc") == everything(api, "/v1/files")[::-1]
    assert everything(api, "/v1/files", purpose="fine-tune-results") == [f"file-results-{finished}"]
    assert len(everything(api, f"{job}/events")) >= 7
    assert api.http.get("/v1/models").json()["has_more"] is False


def test_a_key_of_ones_own_makes_one_job(api: RunningApi) -> None:
    body = {"model": BASE_MODEL, "training_file": send(api, pairs())["id"], "method": {"type": "dpo"}}
    key = {"Idempotency-Key": "mine"}
    first, second = (api.http.post("/v1/fine_tuning/jobs", json=body, headers=key).json()["id"] for _ in range(2))
    assert first == second
    conflict = api.http.post("/v1/fine_tuning/jobs", json=body | {"seed": 5}, headers=key)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (400, "idempotency_key_reused"), conflict.text
    assert api.http.post("/v1/fine_tuning/jobs", json=body).json()["id"] != first
    for job in api.http.get("/jobs", params={"status": "queued", "limit": 100}).json()["data"]:
        api.http.post(f"/jobs/{job['id']}/cancel")
