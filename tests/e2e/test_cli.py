"""The command line against a running service: lists for scripts, jobs and datasets changed, errors by their option."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from api_server import RunningApi
from backends import BASE_MODEL, claim
from typer.testing import CliRunner, Result

from cli.main import app
from core.domain.jobs.failure_codes import FailureCode
from core.services.attempts import lifecycle

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PAIRS = [{"prompt": f"q{n}", "chosen": f"good answer {n}", "rejected": f"bad {n}"} for n in range(12)]


@pytest.fixture(autouse=True)
def _quiet_service() -> Iterator[None]:
    """The service runs in this process, and its log would stand between what a command prints."""
    before = structlog.get_config()
    with Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        yield
        structlog.configure(**before)


def preftune(api: RunningApi, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", api.url])


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def failed_job(api: RunningApi, **fields: Any) -> str:
    job_id = str(api.submit(priority=100, **fields)["id"])
    lifecycle.finish_failed(claim(api.backend), FailureCode.BAD_DATA, "Line 3 is empty.")
    return job_id


def in_a_terminal(columns: int, *arguments: str) -> list[str]:
    """What a command prints in a terminal so wide."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments], stdin=far, stdout=far, stderr=far, env=environment
    )
    os.close(far)
    printed = b""
    try:
        while chunk := os.read(near, 65536):
            printed += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(near)
    assert process.wait(60) == 0, printed
    return ESCAPES.sub("", printed.decode()).splitlines()


def test_ids_are_whole_in_a_terminal_and_in_a_pipe(api: RunningApi) -> None:
    job_id = api.submit(name="a name that is far too long for eighty columns of a terminal")["id"]
    narrow = in_a_terminal(60, "jobs", "list", "--url", api.url)
    assert any(line.startswith(f"{job_id}  a name") for line in narrow), narrow
    assert max(map(len, narrow)) <= 60
    piped = preftune(api, "jobs", "list")
    (line,) = (line for line in piped.stdout.splitlines() if line.startswith(job_id))
    assert "a name that is far too long for eighty columns of a terminal" in line
    assert f"\n{api.dataset_id()} " in preftune(api, "datasets", "list").stdout


def test_every_list_is_read_by_programs(api: RunningApi) -> None:
    ids = [str(api.submit(name=f"listed {n}")["id"]) for n in range(3)]
    listed = preftune(api, "jobs", "list", "--search", "listed", "--json")
    jobs = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [job["id"] for job in jobs] == ids[::-1]
    assert jobs[0]["spec"]["base_model"] == BASE_MODEL
    assert preftune(api, "jobs", "list", "--search", "listed", "-q").stdout.split() == ids[::-1]
    few = preftune(api, "jobs", "list", "--search", "listed", "-q", "--limit", "2")
    assert few.stdout.split() == ids[:0:-1]
    assert "There are more than these 2; see --limit." in few.stderr
    assert preftune(api, "jobs", "list", "--sort", "name", "--search", "listed", "-q").stdout.split() == ids
    assert preftune(api, "models", "list", "-q").stdout.split()[0] == BASE_MODEL
    assert "dpo" in preftune(api, "variants", "-q").stdout.split()
    for arguments in (("datasets", "list"), ("sweep", "list"), ("audit",), ("jobs", "events", ids[0])):
        result = preftune(api, *arguments, "--json")
        assert result.exit_code == 0, result.output
        assert all(isinstance(json.loads(line), dict) for line in result.stdout.splitlines())
        assert preftune(api, *arguments, "--quiet", "-n", "1").exit_code == 0
    nothing = preftune(api, "jobs", "list", "--search", "no such job")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr.strip()) == (0, "", "No jobs.")


def test_one_sweep_is_one_line_of_json_and_a_report_that_cannot_be_written_is_said(
    api: RunningApi, tmp_path: Path
) -> None:
    body = {"job": {"base_model": BASE_MODEL, "dataset_id": api.dataset_id()}, "grid": {"beta": [0.1, 0.2]}}
    sweep = api.http.post("/sweeps", json=body).json()["id"]
    (line,) = preftune(api, "sweep", "show", sweep, "--json").stdout.splitlines()
    assert json.loads(line)["num_members"] == 2
    (line,) = preftune(api, "datasets", "show", api.dataset_id(), "--json").stdout.splitlines()
    assert json.loads(line)["id"] == api.dataset_id()
    report = tmp_path / "missing" / "report.html"
    refused = preftune(api, "sweep", "compare", sweep, "--report", str(report))
    assert (refused.exit_code, refused.stderr) == (1, f"error: {report}: No such file or directory\n")
    assert preftune(api, "sweep", "cancel", sweep).exit_code == 0


def test_jobs_are_renamed_tagged_and_deleted(api: RunningApi) -> None:
    job_id, other = failed_job(api), failed_job(api)
    assert preftune(api, "jobs", "rename", job_id, "a better name").exit_code == 0
    assert api.http.get(f"/jobs/{job_id}").json()["name"] == "a better name"
    edited = preftune(api, "jobs", "edit", job_id, "--tag", "baseline", "--tag", "may", "--notes", "kept for May")
    assert edited.stdout == "tags: baseline, may\nnotes: kept for May\n"
    assert preftune(api, "jobs", "list", "--tag", "baseline", "-q").stdout.split() == [job_id]
    assert preftune(api, "jobs", "edit", job_id, "--remove-tag", "may", "--notes", "").stdout == "tags: baseline\n"
    assert api.http.get(f"/jobs/{job_id}").json()["metadata"] == {"tags": "baseline"}
    assert preftune(api, "jobs", "edit", job_id, "--tag", "a,b").exit_code == 2
    queued = str(api.submit()["id"])
    deleted = preftune(api, "jobs", "delete", queued, job_id, other, "--yes")
    assert deleted.exit_code == 1
    assert f"{queued}: The job is queued; cancel it first." in " ".join(deleted.stderr.split())
    gone = {preftune(api, "jobs", "show", one).exit_code for one in (job_id, other)}
    assert gone == {1}
    assert preftune(api, "jobs", "cancel", queued).stdout == f"{queued} cancelled\n"
    assert preftune(api, "jobs", "delete", queued).exit_code == 0


def test_datasets_are_uploaded_with_columns_renamed_and_deleted(api: RunningApi, tmp_path: Path) -> None:
    renamed = [{"q": row["prompt"], "good": row["chosen"], "bad": row["rejected"]} for row in PAIRS]
    file = write(tmp_path / "renamed.jsonl", renamed)
    refused = preftune(api, "datasets", "upload", file)
    assert (refused.exit_code, refused.stdout) == (1, "")
    advice = "--column prompt=q --column chosen=good --column rejected=bad"
    assert " ".join(refused.stderr.split()).count(advice) == 1
    done = preftune(api, "datasets", "upload", file, *advice.split())
    assert done.exit_code == 0, done.output
    (dataset_id,) = done.stdout.split()
    assert "12 of 12 rows accepted" in done.stderr
    assert preftune(api, "datasets", "rename", dataset_id, "better").exit_code == 0
    assert api.http.get(f"/datasets/{dataset_id}").json()["name"] == "better"
    bad = write(tmp_path / "bad.jsonl", [*PAIRS, {"prompt": "only"}])
    rejected = preftune(api, "datasets", "upload", bad)
    assert "--on-error skip" in rejected.stderr
    assert "on_error" not in rejected.stderr
    (skipped,) = preftune(api, "datasets", "upload", bad, "--on-error", "skip", "--format", "explicit").stdout.split()
    assert preftune(api, "datasets", "delete", dataset_id, skipped).exit_code == 0
    assert preftune(api, "datasets", "show", skipped, "--json").exit_code == 1


def test_a_dataset_in_use_says_which_job_and_stays(api: RunningApi) -> None:
    job_id = api.submit()["id"]
    result = preftune(api, "datasets", "delete", api.dataset_id())
    assert result.exit_code == 1
    assert job_id.startswith("job_")
    assert "has not finished" in " ".join(result.stderr.split())
    assert api.http.get(f"/datasets/{api.dataset_id()}").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--beta", "-1"), "error: --beta: must be greater than 0, not -1"),
        (("--variant", "dop"), "error: --variant: `dop` is not a variant; did you mean `dpo`?"),
        (("--set", "dpo.epoch=2"), "error: --set dpo.epoch: is an unknown field; did you mean `epochs`?"),
        (("--set", "varient=ipo"), "error: --set varient: is an unknown field; did you mean `variant`?"),
        (("--settings", '{"sft": {"lerning_rate": 1}}'), "--settings sft.lerning_rate: is an unknown field"),
        (("--set", "lora.rank"), "--set takes a setting and its value, such as dpo.epochs=2"),
        (("--set", "beta=1", "--set", "beta.x=1"), "beta has a value already"),
        (("--settings", "[1]"), "--settings takes a JSON object"),
    ],
)
def test_a_refusal_is_said_once_with_the_option(api: RunningApi, arguments: tuple[str, ...], words: str) -> None:
    result = preftune(api, "submit", BASE_MODEL, api.dataset_id(), *arguments)
    told = " ".join(result.stderr.split())
    assert result.exit_code == (2 if "takes a" in words or "already" in words else 1)
    assert words in told
    assert told.count(words.partition("; ")[0].removeprefix("error: ")) == 1
    assert "Traceback" not in result.output


def test_an_unknown_base_model_says_what_was_meant(api: RunningApi) -> None:
    near = preftune(api, "submit", BASE_MODEL[:-1], api.dataset_id())
    assert f"BASE_MODEL: No base model `{BASE_MODEL[:-1]}` here." in " ".join(near.stderr.split())
    assert f"Did you mean `{BASE_MODEL}`?" in " ".join(near.stderr.split())
    far = preftune(api, "submit", "gpt2", api.dataset_id())
    assert "models pull gpt2" not in far.stderr


def test_settings_reach_the_job(api: RunningApi) -> None:
    done = preftune(
        api, "submit", BASE_MODEL, api.dataset_id(), "--set", "dpo.epochs=2", "--set", "lora.rank=4",
        "--settings", '{"dpo": {"batch_size": 4}, "max_length": 64}', "--name", "set",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    requested = api.http.get(f"/jobs/{done.stdout.strip()}").json()["requested"]
    assert requested["dpo"] == {"epochs": 2, "batch_size": 4}
    assert (requested["lora"]["rank"], requested["max_length"], requested["name"]) == (4, 64, "set")


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "localhost:8000"])
def test_an_address_that_lacks_http_is_named_by_the_command(address: str) -> None:
    result = CliRunner().invoke(app, ["jobs", "list", "--url", address])
    told = " ".join(result.stderr.split())
    assert result.exit_code == 1
    assert f"did you mean http://{address} ?" in told
    assert "is it running" not in told


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(("job", "list"), "'jobs'"), (("jobs", "lst"), "'list'"), (("datasets", "uplaod"), "'upload'")],
)
def test_a_misspelt_command_says_what_was_meant(arguments: tuple[str, ...], meant: str) -> None:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 2
    assert f"Did you mean {meant}" in " ".join(result.stderr.split())


def test_serving_a_network_without_a_key_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--port", "0"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert type(result.exception) is SystemExit
    assert len(result.stderr.strip().splitlines()) == 1
    assert "PREFTUNE_API_KEY" in result.stderr
    assert list(tmp_path.iterdir()) == []
