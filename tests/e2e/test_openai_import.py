"""`preftune import openai`: an account at a stand-in for OpenAI, a real service, and what can go wrong between them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, serve
from backends import BASE_MODEL, claim, publication
from openai_account import KEY, Account, Fault, run_account
from typer.testing import CliRunner, Result

from cli.main import app
from core.domain.jobs.failure_codes import FailureCode
from core.services.attempts import lifecycle
from preftune import transport
from preftune.cli.openai_import import importer, source, uploads

SERVICE_KEY = "pt_import_0123456789abcdef0123456789"


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def pair(number: int) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": f"What is {number} plus one?"}], "tools": []},
        "preferred_output": [{"role": "assistant", "content": f"It is {number + 1}."}],
        "non_preferred_output": [{"role": "assistant", "content": f"I guess {number}."}],
    }


PAIRS = lines([pair(number) for number in range(12)])
CHATS = lines([
    {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(12)
])  # fmt: skip
HELD_OUT = lines([pair(number) for number in range(50, 55)])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(source, "MAX_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(uploads, "UPLOAD_PAUSE_SECONDS", 0.001)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("service")), api_key=SERVICE_KEY) as running:
        running.http.headers["Authorization"] = f"Bearer {SERVICE_KEY}"
        yield running


@pytest.fixture
def api(served: RunningApi) -> Iterator[RunningApi]:
    """Without a job or a dataset."""
    yield served
    for job in jobs_of(served):
        served.http.post(f"/jobs/{job['id']}/cancel")
        assert served.http.delete(f"/jobs/{job['id']}").status_code == 204
    for dataset in datasets_of(served):
        assert served.http.delete(f"/datasets/{dataset['id']}").status_code == 204


@pytest.fixture
def account() -> Iterator[Account]:
    with run_account() as running:
        running.files |= {"file-pairs": PAIRS, "file-chats": CHATS, "file-held-out": HELD_OUT}
        yield running


def environment(api: RunningApi) -> dict[str, str]:
    return {"OPENAI_API_KEY": KEY, "PREFTUNE_URL": api.url, "PREFTUNE_API_KEY": SERVICE_KEY, "COLUMNS": "500"}


def bring(api: RunningApi, account: Account, folder: Path, *options: str) -> Result:
    words = ["import", "openai", BASE_MODEL, "--openai-url", account.url, "--folder", str(folder), *options]
    return CliRunner().invoke(app, words, env=environment(api))


def report_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {each["job"]["id"]: each for each in json.loads((folder / "report.json").read_text())}


def report_after(api: RunningApi, account: Account, folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Run it once more, which must end well, and return its report."""
    done = bring(api, account, folder, *options)
    assert done.exit_code == 0, done.output
    return report_of(folder)


def jobs_of(api: RunningApi) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.http.get("/jobs", params={"limit": 100}).json()["data"]
    return found


def datasets_of(api: RunningApi) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.http.get("/datasets", params={"limit": 100}).json()["data"]
    return found


def finish_all(api: RunningApi) -> None:
    """Play a worker that ends every queued job with a policy."""
    for _ in [job for job in jobs_of(api) if job["status"] == "queued"]:
        held = claim(api.backend)
        lifecycle.begin(held)
        lifecycle.finish_succeeded(held, publication(api.backend, held))


def test_jobs_are_recreated_with_their_files_and_numbers(api: RunningApi, account: Account, tmp_path: Path) -> None:
    for number in range(1, 6):
        account.add_job(number, validation_file="file-held-out" if number == 2 else None)
    done = bring(api, account, tmp_path)
    assert done.exit_code == 0, done.output
    made = {job["metadata"]["openai_job"]: job for job in jobs_of(api)}
    assert sorted(made) == [f"ftjob-{number}" for number in range(1, 6)]
    for number in range(1, 6):
        job = made[f"ftjob-{number}"]
        spec = job["spec"]
        assert (spec["dpo"]["epochs"], spec["dpo"]["batch_size"], spec["beta"]) == (number, 4, 0.2)
        assert (spec["seed"], job["name"], spec["sft"]) == (40 + number, f"run-{number}", "skip")
        assert job["metadata"] == {
            "team": "a",
            "openai_job": f"ftjob-{number}",
            "openai_import_base": BASE_MODEL,
            "openai_train_loss": "0.41",
            "openai_valid_loss": "0.52",
        }
    by_name = {dataset["name"]: dataset for dataset in datasets_of(api)}
    assert sorted(by_name) == ["file-held-out", "file-pairs"]
    assert made["ftjob-2"]["spec"]["validation_dataset_id"] == by_name["file-held-out"]["id"]
    content = api.http.get(f"/datasets/{by_name['file-pairs']['id']}/content").content
    assert content == PAIRS == (tmp_path / "files" / "file-pairs").read_bytes()
    assert (tmp_path / "results" / "file-results-3.csv").read_text().startswith("step,train_loss,")
    assert "the tuned weights" in done.output


def test_a_repetition_makes_nothing_twice_and_fetches_nothing_again(
    api: RunningApi, account: Account, tmp_path: Path
) -> None:
    for number in range(1, 4):
        account.add_job(number)
    bring(api, account, tmp_path)
    before = [job["id"] for job in jobs_of(api)], [dataset["id"] for dataset in datasets_of(api)]
    account.requests.clear()
    again = bring(api, account, tmp_path)
    assert again.exit_code == 0, again.output
    assert ([job["id"] for job in jobs_of(api)], [dataset["id"] for dataset in datasets_of(api)]) == before
    assert set(account.requests) == {"fine_tuning/jobs"}
    elsewhere = bring(api, account, tmp_path / "elsewhere")  # another machine, with nothing in its folder
    assert elsewhere.exit_code == 0, elsewhere.output
    assert ([job["id"] for job in jobs_of(api)], [dataset["id"] for dataset in datasets_of(api)]) == before
    assert {each["state"] for each in report_of(tmp_path / "elsewhere").values()} == {"there"}


def test_metadata_of_the_settings_is_added(api: RunningApi, account: Account, tmp_path: Path) -> None:
    account.add_job(1)
    done = bring(api, account, tmp_path / "new", "--settings", '{"metadata": {"team": "b", "cost": "7"}}')
    assert done.exit_code == 0, done.output
    [job] = jobs_of(api)
    kept = {key: job["metadata"].get(key) for key in ("openai_job", "openai_train_loss", "team", "cost")}
    assert kept == {"openai_job": "ftjob-1", "openai_train_loss": "0.41", "team": "b", "cost": "7"}
    bring(api, account, tmp_path, "--settings", '{"metadata": {"team": "c"}}')  # another request: found by its names
    assert [each["id"] for each in jobs_of(api)] == [job["id"]]
    folders = [path for path in (tmp_path / "new", *(tmp_path / "new").iterdir()) if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_a_job_that_failed_here_is_told_and_made_again_when_asked(
    api: RunningApi, account: Account, tmp_path: Path
) -> None:
    account.add_job(2, model=account.add_job(1))
    bring(api, account, tmp_path)
    held = claim(api.backend)
    lifecycle.begin(held)
    lifecycle.finish_failed(held, FailureCode.BAD_DATA, "too large")
    done = bring(api, account, tmp_path)
    first, second = (report_of(tmp_path)[name] for name in ("ftjob-1", "ftjob-2"))
    assert (done.exit_code, first["state"], first["job_status"], second["state"]) == (1, "there", "failed", "left out")
    assert "--again" in first["reason"]
    again = bring(api, account, tmp_path, "--again")
    made = report_of(tmp_path)["ftjob-1"]
    assert (again.exit_code, made["state"], report_of(tmp_path)["ftjob-2"]["state"]) == (0, "created", "waits")
    assert made["job_id"] != first["job_id"]
    assert report_after(api, account, tmp_path, "--again")["ftjob-1"]["job_id"] == made["job_id"]
    finish_all(api)
    report = report_after(api, account, tmp_path)
    assert [report[name]["state"] for name in ("ftjob-1", "ftjob-2")] == ["there", "created"]
    assert (report["ftjob-1"]["job_id"], report["ftjob-1"]["job_status"]) == (made["job_id"], "succeeded")


def test_a_job_that_started_from_another_starts_from_its_policy_here(
    api: RunningApi, account: Account, tmp_path: Path
) -> None:
    first = account.add_job(1, "supervised")
    account.add_job(2, model=first)
    account.add_job(3, model=f"{first}:ckpt-step-10")
    account.add_job(4)
    assert bring(api, account, tmp_path).exit_code == 0
    report = report_of(tmp_path)
    assert [report[f"ftjob-{number}"]["state"] for number in range(1, 5)] == ["created", "waits", "waits", "created"]
    assert "run this again" in report["ftjob-2"]["reason"]
    account.files.clear()  # OpenAI has deleted all: what was fetched is enough
    finish_all(api)
    done = bring(api, account, tmp_path)
    assert done.exit_code == 0, done.output
    report = report_of(tmp_path)
    assert [report[f"ftjob-{number}"]["state"] for number in range(1, 5)] == ["there", "created", "created", "there"]
    spec = api.http.get(f"/jobs/{report['ftjob-1']['job_id']}").json()["spec"]
    assert (spec["method"], spec["sft"]["epochs"], spec["sft"]["batch_size"]) == ("supervised", 1, 4)
    parent = api.http.get(f"/v1/fine_tuning/jobs/{report['ftjob-1']['job_id']}").json()["fine_tuned_model"]
    children = [api.http.get(f"/jobs/{report[name]['job_id']}").json() for name in ("ftjob-2", "ftjob-3")]
    assert [child["spec"]["base_model"] for child in children] == [parent, parent]
    assert any("ckpt-step-10" in loss for loss in report["ftjob-3"]["losses"])


def test_it_waits_as_long_as_it_is_told(
    api: RunningApi, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "POLL_SECONDS", 0.05)
    account.add_job(2, model=account.add_job(1))
    waits = bring(api, account, tmp_path, "--wait-seconds", "0.3")
    assert report_of(tmp_path)["ftjob-2"]["state"] == "waits", waits.output
    worker = threading.Timer(0.3, finish_all, [api])
    worker.start()
    done = bring(api, account, tmp_path, "--wait-seconds", "30")
    worker.join()
    assert report_of(tmp_path)["ftjob-2"]["state"] == "created", done.output


def test_what_cannot_be_carried_over_is_told_with_its_reason(api: RunningApi, account: Account, tmp_path: Path) -> None:
    account.files["file-bad"] = PAIRS + b"not json\n"
    grading = {"type": "reinforcement", "reinforcement": {"grader": {}}}
    account.add_job(1, training_file="file-gone")
    account.add_job(2, training_file="file-bad")
    account.add_job(3, method=grading)
    orphan = account.add_job(4, model="ft:gpt-4o-2024-08-06:acme::deleted")
    account.add_job(5, model=orphan)
    run = {"type": "wandb", "wandb": {"project": "theirs"}}
    figures = {"n_epochs": 1, "beta": 0.1, "learning_rate_multiplier": 2, "magic": 7}
    account.add_job(6, integrations=[run], method={"type": "dpo", "dpo": {"hyperparameters": figures}})
    account.add_job(7, result_files=["file-lost"])
    account.add_job(8, seed=-3)
    account.add_job(9, status="failed", fine_tuned_model=None)
    account.add_job(10, training_file="../../etc/passwd")
    done = bring(api, account, tmp_path)
    assert done.exit_code == 1, done.output
    report = report_of(tmp_path)
    reasons = {name: each["reason"] for name, each in report.items() if each["state"] == "left out"}
    assert sorted(reasons) == ["ftjob-1", "ftjob-10", "ftjob-2", "ftjob-3", "ftjob-4", "ftjob-5", "ftjob-8"], reasons
    assert "No such File object: file-gone" in reasons["ftjob-1"]
    assert "line 13" in reasons["ftjob-2"]
    assert "reinforcement" in reasons["ftjob-3"]
    assert "which no imported job has made" in reasons["ftjob-4"]
    assert "ftjob-4, which is left out" in reasons["ftjob-5"]
    assert "/seed" in reasons["ftjob-8"]
    losses = "\n".join(report["ftjob-6"]["losses"])
    assert all(word in losses for word in ("integration wandb", "hyperparameter magic (7)", "2 times")), losses
    assert "file-lost" in "\n".join(report["ftjob-7"]["losses"])
    assert all(loss in done.output for each in report.values() for loss in each["losses"])
    (tmp_path / "files" / "file-gone").write_bytes(HELD_OUT)  # a copy of one's own
    bring(api, account, tmp_path, "--job", "ftjob-1")
    assert report_of(tmp_path)["ftjob-1"]["state"] == "created"


FAULTS = {
    "rate-limited": Fault(429, {"Retry-After": "1"}),
    "out-of-order": Fault(500),
    "busy": Fault(503),
    "closed": Fault(),
    "no-json": Fault(200, body=b"<html>"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_passes_is_asked_for_again(api: RunningApi, account: Account, tmp_path: Path, fault: Fault) -> None:
    account.add_job(1)
    paths = ["fine_tuning/jobs", "files/file-pairs", "files/file-pairs/content", "files/file-results-1/content"]
    account.faults = {path: [fault] * 2 for path in paths}
    if fault.body is not None:
        account.faults.pop("files/file-results-1/content")  # of any length
    done = bring(api, account, tmp_path)
    assert done.exit_code == 0, done.output
    assert not any(account.faults.values())
    assert (tmp_path / "files" / "file-pairs").read_bytes() == PAIRS
    assert [job["status"] for job in jobs_of(api)] == ["queued"]


def test_what_does_not_pass_ends_it_with_a_bound(api: RunningApi, account: Account, tmp_path: Path) -> None:
    account.add_job(1)
    account.faults["fine_tuning/jobs"] = [Fault(500)] * 100
    done = bring(api, account, tmp_path)
    assert done.exit_code == 1
    assert "run it again" in done.output
    assert account.requests == ["fine_tuning/jobs"] * source.MAX_TRIES
    account.faults.clear()
    assert bring(api, account, tmp_path).exit_code == 0


def test_a_list_without_end_comes_to_one(api: RunningApi, account: Account, tmp_path: Path) -> None:
    account.add_job(1)
    page = json.dumps({"object": "list", "data": account.jobs, "has_more": True}).encode()
    account.faults["fine_tuning/jobs"] = [Fault(200, body=page)] * 100
    assert bring(api, account, tmp_path).exit_code == 0
    assert account.requests.count("fine_tuning/jobs") == 2


class Stopped(BaseException):
    """As a kill: nothing of the importer's own catches it."""


def test_stopped_after_any_request_it_goes_on_and_doubles_nothing(
    api: RunningApi, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request of the run is once the last one of a run: it arrives, and its answer is never seen."""
    account.add_job(1)
    account.add_job(2, validation_file="file-held-out")
    usual = httpx.Client.send

    def is_stopped_at(last: int) -> bool:
        left = iter(range(last - 1, -1, -1))

        def send(self: httpx.Client, *args: Any, **options: Any) -> httpx.Response:
            answer = usual(self, *args, **options)
            if self is not api.http and next(left, None) == 0:
                raise Stopped
            return answer

        with monkeypatch.context() as patched:
            patched.setattr(httpx.Client, "send", send)
            try:
                result = bring(api, account, tmp_path)
            except Stopped:
                return True
        assert result.exit_code == 0, result.output
        return False

    assert next(last for last in range(1, 40) if not is_stopped_at(last)) > 5
    assert sorted(job["metadata"]["openai_job"] for job in jobs_of(api)) == ["ftjob-1", "ftjob-2"]
    assert sorted(dataset["name"] for dataset in datasets_of(api)) == ["file-held-out", "file-pairs"]


def test_killed_while_it_fetches_it_goes_on(api: RunningApi, account: Account, tmp_path: Path) -> None:
    account.add_job(1)
    at_gate, gate = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        if number == 3:  # the content of the file
            at_gate.set()
            gate.wait(60)

    account.before = hold
    words = ["import", "openai", BASE_MODEL, "--openai-url", account.url, "--folder", str(tmp_path / "kept")]
    process = subprocess.Popen([sys.executable, "-m", "cli.main", *words], env=os.environ | environment(api))
    assert at_gate.wait(60)
    process.kill()
    process.wait(10)
    gate.set()
    account.before = lambda number: None
    assert bring(api, account, tmp_path / "kept").exit_code == 0
    assert len(jobs_of(api)) == len(datasets_of(api)) == 1


def test_a_large_file_goes_on_where_its_upload_was_stopped(
    api: RunningApi, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preftune.datasets.IN_PARTS_FROM_BYTES", 100)
    account.add_job(1)
    usual = transport.Transport.put

    def put(*args: Any, **options: Any) -> Any:
        usual(*args, **options)
        raise Stopped

    monkeypatch.setattr(transport.Transport, "put", put)
    with pytest.raises(Stopped):
        bring(api, account, tmp_path)
    monkeypatch.setattr(transport.Transport, "put", lambda *_, **__: pytest.fail("the part was there"))
    done = bring(api, account, tmp_path)
    assert done.exit_code == 0, done.output
    assert len(jobs_of(api)) == len(datasets_of(api)) == 1


def test_the_key_is_nowhere_but_at_openai(
    api: RunningApi, account: Account, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    account.add_job(1, training_file="file-gone")
    account.add_job(2)
    account.faults = {
        "files/file-gone": [Fault(400)],  # each says the key that it was sent
        "files/file-pairs": [Fault(500)],
        "files/file-results-2/content": [Fault(404)],
    }
    outputs = [bring(api, account, tmp_path, "--settings", '{"lora": {"rank": 4}}')]
    account.faults = {"fine_tuning/jobs": [Fault(500)] * 20}
    outputs.append(bring(api, account, tmp_path))
    account.faults = {"fine_tuning/jobs": [Fault(401)]}
    outputs.append(bring(api, account, tmp_path))
    assert [output.exit_code for output in outputs] == [1, 1, 1]
    assert set(account.keys) == {f"Bearer {KEY}"}
    printed = "".join(output.output + str(output.exception) for output in outputs) + "".join(capfd.readouterr())
    assert "<key>" in printed
    assert KEY not in printed
    held = [tmp_path, api.settings.data_dir]
    files = [path for folder in held for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("variables", "options", "told"),
    [
        ({"OPENAI_API_KEY": ""}, [], "put the key"),
        ({"OPENAI_API_KEY": "sk-é"}, [], "put the key"),
        ({}, ["--openai-url", "http://openai.example/v1"], "must begin with https://"),
        ({}, ["--openai-url", "{service}/v1"], "is the address of the service"),
        ({}, ["--on", "gpt-4o"], "--on takes two names"),
        ({}, ["--settings", "[]"], "--settings takes a JSON object"),
        ({}, ["--settings", '{"model": "x"}'], "--settings cannot hold model"),
        ({}, ["--settings", '{"metadata": []}'], "takes a JSON object as metadata"),
        ({}, ["--settings", '{"metadata": {"openai_job": "x"}}'], "--settings cannot hold metadata openai_job"),
        ({}, ["--job", "ftjob-77"], "the account has no job ftjob-77"),
    ],
)
def test_misuse_is_told_before_anything_is_sent(
    api: RunningApi, account: Account, tmp_path: Path, variables: dict[str, str], options: list[str], told: str
) -> None:
    words = ["import", "openai", BASE_MODEL, "--folder", str(tmp_path), "--openai-url", account.url]
    words += [option.replace("{service}", api.url.replace("127.0.0.1", "localhost")) for option in options]
    refused = CliRunner().invoke(app, words, env=environment(api) | variables)
    assert (refused.exit_code, told in refused.output) == (2, True), refused.output
    assert set(account.requests) <= {"fine_tuning/jobs"}
    assert jobs_of(api) == []


def test_it_goes_on_without_openai(api: RunningApi, account: Account, tmp_path: Path) -> None:
    assert "holds no list of jobs" in bring(api, account, tmp_path, "--offline").output
    account.add_job(2, model=account.add_job(1))
    plan = bring(api, account, tmp_path, "--dry-run")
    assert plan.exit_code == 0
    assert ("ftjob-1" in plan.output, jobs_of(api), account.requests) == (True, [], ["fine_tuning/jobs"])
    bring(api, account, tmp_path)
    finish_all(api)
    account.requests.clear()
    words = ["import", "openai", BASE_MODEL, "--folder", str(tmp_path), "--offline"]
    done = CliRunner().invoke(app, words, env=environment(api) | {"OPENAI_API_KEY": ""})
    assert done.exit_code == 0, done.output
    assert account.requests == []
    assert len(jobs_of(api)) == 2
