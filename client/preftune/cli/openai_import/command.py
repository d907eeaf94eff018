"""Command `preftune import openai`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer
from rich.table import Table
from rich.text import Text

from preftune.cli.console import connected, err, fail, json_object, out
from preftune.cli.openai_import.folder import Folder
from preftune.cli.openai_import.importer import Choices, Importer, Outcome
from preftune.cli.openai_import.source import DEFAULT_URL, Source, SourceFailed
from preftune.cli.openai_import.translation import OWN_FIELDS, SourceJob, read_job
from preftune.client import DEFAULT_URL as DEFAULT_SERVICE_URL

app = typer.Typer(help="Bring jobs and data from another service.", no_args_is_help=True)
KEY_VARIABLE = "OPENAI_API_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


@app.callback()
def bring() -> None:
    """Bring jobs and data from another service."""


@app.command("openai")
def import_openai(
    base_model: Annotated[str, typer.Argument(metavar="BASE_MODEL", help="What jobs start from here.")],
    *,
    on: Annotated[
        list[str] | None, typer.Option(help="Another base model for one of OpenAI's: gpt-4o-2024-08-06=qwen2.5-7b.")
    ] = None,
    job: Annotated[
        list[str] | None, typer.Option(help="Only this job, ftjob-…, and those that it starts from.")
    ] = None,
    all_statuses: Annotated[bool, typer.Option(help="Failed and cancelled jobs, too.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Make once more what failed or was cancelled here.")] = False,
    settings: Annotated[
        str | None, typer.Option(help='Fields of POST /jobs that every job gets, as JSON: {"lora": {"rank": 16}}')
    ] = None,
    folder: Annotated[Path, typer.Option(file_okay=False, help="Where what is fetched stays, for repetitions.")] = Path(
        "openai-import"
    ),
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="How long to wait for jobs that others start from; without: run it again.")
    ] = 0.0,
    offline: Annotated[bool, typer.Option("--offline", help="Ask OpenAI nothing: take what the folder holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; fetch no file.")] = False,
    openai_url: Annotated[str, typer.Option(help="Where OpenAI's API is.")] = DEFAULT_URL,
    url: Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")] = None,
) -> None:
    """Recreate the fine-tuning jobs of an account at OpenAI: files, DPO and supervised jobs, and their chains.

    The account's key is read from OPENAI_API_KEY and goes to OpenAI only. Repeated, it makes nothing twice. Exit code 1
    where a job could not be carried over, or has failed or been cancelled here.
    """
    choices = Choices(
        base_model=base_model,
        base_models=_pairs(on or []),
        settings=_settings(settings),
        again=again,
        wait_seconds=wait_seconds,
    )
    kept = Folder(folder)
    with nullcontext() if offline else _source(openai_url, url) as source, _failing():
        jobs = _select(_listed(kept, source), job or [], all_statuses=all_statuses)
        if dry_run:
            return _print_plan(jobs)
        with connected(url) as client:
            outcomes = Importer(client, source, kept, choices, _say).run(jobs)
    _conclude(kept, outcomes)


@contextmanager
def _failing() -> Iterator[None]:
    """Make one sentence of an account that cannot be asked."""
    try:
        yield
    except SourceFailed as error:
        fail(f"{error}. What is done stays; run it again.")


def _conclude(folder: Folder, outcomes: list[Outcome]) -> NoReturn:
    _print(outcomes)
    report = folder.write("report.json", [asdict(outcome) for outcome in outcomes])
    err.print(f"the whole report: {report}", markup=False)
    raise typer.Exit(0 if not any(outcome.is_lost for outcome in outcomes) else 1)


def _source(url: str, service_url: str | None) -> Source:
    """Open the account; exits where the key is missing, or would go where it does not belong.

    `OPENAI_BASE_URL` is not read: who has moved scripts to the service has set it to the service.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        fail(f"put the key of the account at OpenAI into {KEY_VARIABLE}; it is sent to OpenAI only", code=2)
    there = urlsplit(url)
    if _place(url) == _place(service_url or os.environ.get("PREFTUNE_URL") or DEFAULT_SERVICE_URL):
        fail(f"--openai-url is the address of the service: {KEY_VARIABLE} would be sent to it", code=2)
    if there.scheme != "https" and there.hostname not in _LOOPBACK:
        fail(f"--openai-url must begin with https://: {KEY_VARIABLE} would be readable on its way", code=2)
    headers = {header: value for name, header in _HEADERS.items() if (value := os.environ.get(name))}
    return Source(url, key, headers)


def _place(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return ("localhost" if parts.hostname in _LOOPBACK else parts.hostname), port


def _listed(folder: Folder, source: Source | None) -> list[SourceJob]:
    """Return all jobs of the account, the oldest first; their list stays in the folder."""
    if source is not None:
        found = source.jobs()
        folder.keep_jobs(found)
    else:
        try:
            found = folder.kept_jobs()
        except (FileNotFoundError, ValueError):
            fail(f"{folder.path} holds no list of jobs; run it once without --offline")
    return [read_job(job) for job in found]


def _select(jobs: list[SourceJob], ids: list[str], *, all_statuses: bool) -> list[SourceJob]:
    """Return the jobs that were asked for and those that they start from, in their order."""
    by_id, makers = {job.id: job for job in jobs}, {job.outcome: job for job in jobs if job.outcome}
    if missing := [job_id for job_id in ids if job_id not in by_id]:
        fail(f"the account has no job {missing[0]}; it has {len(jobs)} in all", code=2)
    wanted = [by_id[job_id] for job_id in ids] or [job for job in jobs if all_statuses or job.status == "succeeded"]
    chosen = set[str]()
    for job in wanted:
        found: SourceJob | None = job
        while found is not None and found.id not in chosen:
            chosen.add(found.id)
            found = makers.get(found.parent_model) if found.parent_model else None
    return [job for job in jobs if job.id in chosen]


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if not all(pairs.keys()) or not all(pairs.values()):
        fail("--on takes two names, as in --on gpt-4o-2024-08-06=qwen2.5-7b", code=2)
    return pairs


def _settings(text: str | None) -> dict[str, Any]:
    found = json_object("--settings", '{"lora": {"rank": 16}}', text) or {}
    if taken := [name for name in OWN_FIELDS if name in found]:
        fail(f"--settings cannot hold {taken[0]}, which comes from the account's job", code=2)
    metadata = found.get("metadata", {})
    if not isinstance(metadata, dict):
        fail('--settings takes a JSON object as metadata, such as {"metadata": {"team": "research"}}', code=2)
    if own := [key for key in metadata if key.startswith("openai_")]:
        fail(f"--settings cannot hold metadata {own[0]}: the import finds its jobs by such names", code=2)
    return found


def _say(line: str) -> None:
    err.print(line, markup=False)


def _print_plan(jobs: list[SourceJob]) -> None:
    table = Table("job", "method", "model", "training file", "hyperparameters", box=None)
    for job in jobs:
        row: tuple[Any, ...] = (job.id, job.method, job.model, job.training_file, job.hyperparameters)
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)
    _print_losses([(job.id, loss) for job in jobs for loss in job.losses])


def _print(outcomes: list[Outcome]) -> None:
    table = Table("job", "method", "here", "state", "why", box=None)
    for outcome in outcomes:
        status = f"{outcome.state}, {outcome.job_status}" if outcome.job_status else outcome.state
        row = (outcome.job.id, outcome.job.method, outcome.job_id or "–", status, outcome.reason or "")
        table.add_row(*map(Text, row))
    out.print(table)
    _print_losses([(outcome.job.id, loss) for outcome in outcomes for loss in outcome.losses])


def _print_losses(losses: list[tuple[str, str]]) -> None:
    out.print("\nnot carried over:")
    out.print("  the tuned weights: OpenAI gives none out; the jobs train them anew on the base model here")
    for job_id, loss in losses:
        out.print(f"  {job_id}: {loss}", markup=False)
