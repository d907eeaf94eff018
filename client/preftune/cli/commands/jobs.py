"""Commands `preftune submit | watch | download | jobs …`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from preftune import Client
from preftune.cli.console import TEMPLATE_KWARGS, connected, err, fail, json_object, out
from preftune.cli.dataset_report import print_data_warnings
from preftune.cli.estimates import print_estimate
from preftune.cli.watch import EXIT_CODES, watch_job

Url = Annotated[str | None, typer.Option(help="The service; default PREFTUNE_URL or this machine.")]
JobId = Annotated[str, typer.Argument(metavar="JOB")]
jobs_app = typer.Typer(help="List, inspect and control jobs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    for command in (submit, watch, log, download, export):
        app.command()(command)
    app.add_typer(jobs_app, name="jobs")


def submit(
    base_model: Annotated[str, typer.Argument(metavar="BASE_MODEL", help="A name from `preftune models list`.")],
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET", help="An id from `preftune datasets list`.")],
    method: Annotated[
        str | None, typer.Option(help="preference (default): SFT, then a preference loss; supervised: SFT alone.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="The preference loss; default dpo.")] = None,
    beta: Annotated[
        float | None, typer.Option(help="How strongly training stays close to the reference; default: the variant's.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise it by.")] = None,
    settings: Annotated[
        str | None, typer.Option(help='More fields of POST /jobs as JSON: {"dpo": {"epochs": 2}}')
    ] = None,
    chat_template_kwargs: Annotated[
        str | None, typer.Option(help='Variables of the chat template, as JSON: {"enable_thinking": false}')
    ] = None,
    strict: Annotated[bool, typer.Option(help="Do not post the job where its data has warnings.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would take; post nothing.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Show the job until it ends.")] = False,
    url: Url = None,
) -> None:
    """Post a job and print its id; what is to be known of its data goes to stderr first."""
    kwargs = json_object(*TEMPLATE_KWARGS, chat_template_kwargs)
    own = {"method": method, "variant": variant, "beta": beta, "name": name, "chat_template_kwargs": kwargs}
    given = (json_object("--settings", '{"dpo": {"epochs": 2}}', settings) or {}) | {
        key: value for key, value in own.items() if value is not None
    }
    with connected(url) as client:
        preview = client.jobs.preview(base_model=base_model, dataset_id=dataset_id, **given)
        if print_data_warnings(preview) and strict:
            fail("not posted: the data has warnings, and --strict was given")
        if dry_run:
            print_estimate(preview["estimate"])
            return
        job = client.jobs.submit(base_model=base_model, dataset_id=dataset_id, **given)
        out.print(job["id"])
        if follow:
            _follow(client, job["id"])


def watch(job: JobId, url: Url = None) -> None:
    """Show a job live until it ends. Exit code: 0 succeeded, 1 failed, 3 cancelled."""
    with connected(url) as client:
        _follow(client, job)


def log(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job has ended.")] = False,
    url: Url = None,
) -> None:
    """Print what the job's trainings have printed, tracebacks included: at most the last MiB."""
    with connected(url) as client:
        for text in client.jobs.follow_log(job) if follow else (client.jobs.log(job),):
            out.out(text, end="", highlight=False)


def download(
    job: JobId,
    directory: Annotated[Path | None, typer.Argument(help="Default: a folder of the job's id.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Fetch the policy at this checkpoint instead.")] = None,
    url: Url = None,
) -> None:
    """Fetch the tuned policy, verified; an interrupted download continues where it stopped."""
    with connected(url) as client:
        if checkpoint is None:
            _warn_of_old_merge(client.jobs.get(job))
            folder = download_with_progress(client, job, directory or Path(job))
        else:
            folder = client.jobs.download_checkpoint(job, checkpoint, directory or Path(f"{job}-{checkpoint}"))
    out.print(str(folder), markup=False, soft_wrap=True)


def _warn_of_old_merge(job: dict[str, Any]) -> None:
    if (job["artifact"] or {}).get("merged_in_bf16"):
        text = "An earlier version merged this policy in bf16 and lost a part of its update:"
        err.print(f"{text} preftune jobs republish {job['id']}", markup=False, style="yellow")


def export(
    job: JobId,
    export_format: Annotated[str, typer.Argument(metavar="FORMAT", help="gguf-f32, gguf-f16 or gguf-q8_0.")],
    directory: Annotated[Path, typer.Argument(help="Folder for the file.")] = Path("."),
    url: Url = None,
) -> None:
    """Fetch the tuned policy in another format, for llama.cpp; it is converted first if needed."""
    with connected(url) as client:
        made = client.jobs.export(job, export_format)
        path = client.jobs.download_export(job, made, directory)
    out.print(str(path), markup=False, soft_wrap=True)


def download_with_progress(client: Client, job_id: str, directory: Path) -> Path:
    files = client.jobs.published_files(job_id)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("downloading", total=sum(file["num_bytes"] for file in files))
        return client.jobs.download(job_id, directory, on_progress=lambda num_bytes: progress.advance(task, num_bytes))


@jobs_app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None, url: Url = None
) -> None:
    """List the newest jobs."""
    with connected(url) as client:
        jobs = client.jobs.list(status=status, limit=100)["data"]
    table = Table("id", "name", "status", "stage", "base model", "loss", "created", box=None)
    for job in jobs:
        spec = job["spec"]
        cells = (
            job["id"],
            job["name"],
            job["status"],
            job["stage"],
            spec["base_model"],
            spec.get("variant", spec.get("method")),
            job["created_at"],
        )
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells))
    out.print(table)


@jobs_app.command()
def show(job: JobId, url: Url = None) -> None:
    """Show one job as JSON."""
    with connected(url) as client:
        out.print_json(data=client.jobs.get(job))


@jobs_app.command()
def events(job: JobId, url: Url = None) -> None:
    """Show the events of a job."""
    with connected(url) as client:
        for event in client.jobs.events(job):
            out.print(f"{event['at']} {event['level']:7} {event['message']}", markup=False, soft_wrap=True)


@jobs_app.command()
def pairs(
    job: JobId,
    flag: Annotated[str | None, typer.Option(help="Only pairs with this flag, such as likely_mislabelled.")] = None,
    sort: Annotated[str, typer.Option(help="A column; `-` before it for the largest first.")] = "-mislabelled_score",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    url: Url = None,
) -> None:
    """Show the report on the pairs of a job."""
    with connected(url) as client:
        found = client.jobs.pairs(job, flag=flag, sort=sort, limit=limit)["data"]
    names = ("line", "split", "margin_first", "margin_last", "mislabelled_score")
    table = Table(*names, "flags", box=None)
    for pair in found:
        cells = [f"{pair[name]:.3f}" if isinstance(pair[name], float) else str(pair[name] or "") for name in names]
        table.add_row(*cells, " ".join(pair["flags"]))
    out.print(table)


@jobs_app.command()
def score(
    job: JobId,
    file: Annotated[Path, typer.Argument(help="JSON lines: prompt and response, or prompt, chosen and rejected.")],
    url: Url = None,
) -> None:
    """Compute implicit rewards under the policy of a job, one JSON line each."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    is_pairs = bool(rows) and "chosen" in rows[0]
    with connected(url) as client:
        for start in range(0, len(rows), 1000):
            part = rows[start : start + 1000]
            for result in client.jobs.score(job, pairs=part) if is_pairs else client.jobs.score(job, items=part):
                print(json.dumps(result))  # noqa: T201 - for programs, not wrapped


@jobs_app.command()
def rerun(
    job: JobId,
    exclude: Annotated[list[int] | None, typer.Option(help="A line of the file to leave out; may be repeated.")] = None,
    swap: Annotated[list[int] | None, typer.Option(help="A line whose pair is swapped; may be repeated.")] = None,
    url: Url = None,
) -> None:
    """Create the same job with some pairs left out or swapped."""
    with connected(url) as client:
        out.print(client.jobs.rerun(job, exclude_lines=exclude or (), swap_lines=swap or ())["id"])


@jobs_app.command()
def checkpoints(job: JobId, url: Url = None) -> None:
    """List the kept checkpoints of a job, the best one marked."""
    with connected(url) as client:
        found = client.jobs.checkpoints(job)
    table = Table("id", "stage", "step", "validation loss", "accuracy", "", box=None)
    for item in found:
        values = (item["metrics"].get("loss"), item["metrics"].get("rewards/accuracies"))
        shown = ["" if value is None else f"{value:.4f}" for value in values]
        table.add_row(item["id"], item["stage"], str(item["step"]), *shown, "best" if item["is_best"] else "")
    out.print(table)


@jobs_app.command()
def cancel(
    job: JobId,
    save: Annotated[bool, typer.Option("--save", help="Publish the current policy.")] = False,
    url: Url = None,
) -> None:
    """Cancel a job for good."""
    with connected(url) as client:
        _print_status(client.jobs.cancel(job, save=save))


@jobs_app.command()
def pause(job: JobId, url: Url = None) -> None:
    """Pause a job at its next step, with a checkpoint, and free its device."""
    with connected(url) as client:
        _print_status(client.jobs.pause(job))


@jobs_app.command()
def resume(job: JobId, url: Url = None) -> None:
    """Resume a paused job from its checkpoint."""
    with connected(url) as client:
        _print_status(client.jobs.resume(job))


@jobs_app.command()
def retry(job: JobId, url: Url = None) -> None:
    """Create a job from the newest intact checkpoint of an ended one."""
    with connected(url) as client:
        out.print(client.jobs.retry(job)["id"])


@jobs_app.command()
def republish(job: JobId, url: Url = None) -> None:
    """Merge a policy that an earlier version merged in bf16 again, in float32, in the old artifact's place."""
    with connected(url) as client:
        outcome = client.jobs.republish(job)["outcome"]
    out.print(f"manifest {outcome['manifest_sha256']}, before {outcome['manifest_sha256_before']}", markup=False)


def _print_status(job: dict[str, Any]) -> None:
    out.print(f"{job['id']} {job['status']} (desired: {job['desired']})", markup=False)


def _follow(client: Client, job_id: str) -> None:
    job = watch_job(client, job_id, out)
    if job["error"]:
        err.print(f"{job['error']['title']}: {job['error']['detail']}", markup=False, style="red")
    raise typer.Exit(EXIT_CODES[job["status"]])
