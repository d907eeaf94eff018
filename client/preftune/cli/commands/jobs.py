"""Commands `preftune submit | watch | log | download | export`, and those of `preftune jobs` that read and control."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from preftune import Client
from preftune.cli.console import TEMPLATE_KWARGS, connected, err, fail, for_each, json_object, out, setting
from preftune.cli.dataset_report import print_data_warnings
from preftune.cli.estimates import print_estimate
from preftune.cli.listing import Column, Item, collect, named, print_list, time_column
from preftune.cli.options import WORKING, AsJson, BaseModel, DatasetId, Limit, Quiet, TemplateKwargs, Url
from preftune.cli.watch import EXIT_CODES, watch_job

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id: job_…")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB", help="Ids of jobs: job_…")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SETTING=VALUE", help="Another setting: dpo.epochs=2, lora.rank=8. Repeatable."),
]
SettingsJson = Annotated[
    str | None, typer.Option(metavar="JSON", help='Other settings as JSON: {"dpo": {"epochs": 2}}')
]
INTERRUPTED: Final = 130
jobs_app = typer.Typer(help="List, inspect and control jobs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    for command in (submit, watch, log, download, export):
        app.command(rich_help_panel=WORKING)(command)
    app.add_typer(jobs_app, name="jobs", rich_help_panel=WORKING)


def submit(
    base_model: BaseModel,
    dataset_id: DatasetId,
    method: Annotated[
        str | None,
        typer.Option(
            help="preference (default): SFT, then a preference loss; supervised: SFT alone; reward: a reward model."
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="The preference loss, from `preftune variants`; default dpo.")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(help="How strongly training stays close to the reference model; default: the variant's."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise the job by.")] = None,
    set_: Settings = None,
    settings: SettingsJson = None,
    chat_template_kwargs: TemplateKwargs = None,
    strict: Annotated[bool, typer.Option("--strict", help="Do not submit the job if its data has warnings.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what the job would take; submit nothing.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Watch the job until it ends.")] = False,
    url: Url = None,
) -> None:
    """Submit a job and print its id. Warnings about its data go to stderr."""
    kwargs = json_object(*TEMPLATE_KWARGS, chat_template_kwargs)
    own = {"method": method, "variant": variant, "beta": beta, "name": name, "chat_template_kwargs": kwargs}
    given = _settings(settings, set_ or []) | {key: value for key, value in own.items() if value is not None}
    with connected(url, rest="--settings" if settings else "--set") as client:
        preview = client.jobs.preview(base_model=base_model, dataset_id=dataset_id, **given)
        if print_data_warnings(preview) and strict:
            fail("not submitted: the data has warnings, and --strict was given")
        if dry_run:
            print_estimate(preview["estimate"])
            return
        job = client.jobs.submit(base_model=base_model, dataset_id=dataset_id, **given)
        out.print(job["id"])
        if follow:
            _follow(client, job["id"])


def _settings(as_json: str | None, each: list[str]) -> Item:
    """Return the settings of a request that have no option of their own."""
    given = json_object("--settings", '{"dpo": {"epochs": 2}}', as_json) or {}
    for text in each:
        path, value = setting("--set", "dpo.epochs=2", text)
        _put(given, path, value)
    return given


def _put(settings: Item, path: str, value: Any) -> None:
    """Put a value at a dotted path."""
    *outer, last = path.split(".")
    for name in outer:
        settings = settings.setdefault(name, {})
        if not isinstance(settings, dict):
            fail(f"--set {path}: {name} has a value already, and cannot have settings below it", code=2)
    settings[last] = value


def watch(job: JobId, url: Url = None) -> None:
    """Watch a job until it ends. Exit code 0: succeeded; 1: failed; 3: cancelled; 130: Ctrl-C; the job continues."""
    with connected(url) as client:
        _follow(client, job)


def log(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job has ended.")] = False,
    url: Url = None,
) -> None:
    """Print the output of a job's training processes, tracebacks included: at most the last MiB."""
    with connected(url) as client:
        for text in client.jobs.follow_log(job) if follow else (client.jobs.log(job),):
            out.out(text, end="", highlight=False)


def download(
    job: JobId,
    directory: Annotated[Path | None, typer.Argument(help="Folder to write to; default: one named as the job.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Download the policy of this checkpoint, from `preftune jobs checkpoints`.")
    ] = None,
    url: Url = None,
) -> None:
    """Download the tuned policy and verify it. An interrupted download continues where it stopped."""
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
    directory: Annotated[Path, typer.Argument(help="Folder to write the file to.")] = Path("."),
    url: Url = None,
) -> None:
    """Download the tuned policy as GGUF, for llama.cpp. It is converted first if needed."""
    with connected(url, arguments={"format": "FORMAT"}) as client:
        made = client.jobs.export(job, export_format)
        path = client.jobs.download_export(job, made, directory)
    out.print(str(path), markup=False, soft_wrap=True)


def download_with_progress(client: Client, job_id: str, directory: Path) -> Path:
    files = client.jobs.published_files(job_id)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("downloading", total=sum(file["num_bytes"] for file in files))
        return client.jobs.download(job_id, directory, on_progress=lambda num_bytes: progress.advance(task, num_bytes))


def _variant(job: Item) -> str:
    spec = job["spec"]
    return str(spec.get("variant", spec.get("method")))


def _stage(job: Item) -> str:
    stage, progress = job["stage"] or "", job["progress"] or {}
    is_under_way = job["status"] in ("running", "paused") and progress.get("total_steps")
    return f"{stage} {progress['step']}/{progress['total_steps']}" if is_under_way else stage


def _result(job: Item) -> str:
    held_out = (job.get("results") or {}).get("held_out") or {}
    for name, label in (("reward_accuracy", "accuracy"), ("token_accuracy", "token accuracy")):
        if (held_out.get(name) or {}).get("value") is not None:
            return f"{label} {held_out[name]['value']:.1%}"
    return ""


_COLUMNS: Final = (
    named("id", is_whole=True),
    named("name"),
    named("status"),
    time_column("created_at", "created (UTC)", may_go=True),
    Column(title="stage", value=_stage, may_go=True),
    Column(title="held out", value=_result, may_go=True),
    Column(title="base model", value=lambda job: job["spec"]["base_model"], may_go=True),
    Column(title="variant", value=_variant, may_go=True),
)


@jobs_app.command("list")
def list_jobs(
    *,
    status: Annotated[
        str | None, typer.Option(help="Only queued, running, paused, succeeded, failed or cancelled ones.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="Only jobs with this text in name, id, tags or notes.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    variant: Annotated[str | None, typer.Option(help="Only jobs of this variant.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Only jobs that start from this model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs that use this dataset: ds_…")] = None,
    sort: Annotated[
        str, typer.Option(help="created, name, finished, loss, accuracy or margin; `-` before it: the largest first.")
    ] = "-created",
    limit: Limit = 100,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """List jobs, the newest first. A narrow terminal shows fewer columns."""
    where: dict[str, Any] = {"status": status, "search": search, "tag": tag, "variant": variant}
    where |= {"base_model": base_model, "dataset_id": dataset, "sort": sort}
    with connected(url) as client:
        jobs, has_more = collect(lambda **page: client.jobs.list(**where, **page), limit)
    print_list(jobs, _COLUMNS, as_json=as_json, quiet=quiet, has_more=has_more, nothing="No jobs.")


@jobs_app.command()
def show(job: JobId, url: Url = None) -> None:
    """Print one job as JSON."""
    with connected(url) as client:
        out.print_json(data=client.jobs.get(job))


@jobs_app.command()
def events(
    job: JobId,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only the newest.")] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the events' numbers only.")] = False,
    url: Url = None,
) -> None:
    """Print the events of a job, the oldest first."""
    with connected(url) as client:
        found: list[Item] = []
        while page := client.jobs.events(job, after=found[-1]["seq"] if found else None):
            found += page
    found = found[-limit:] if limit else found
    if as_json or quiet:
        print_list(found, (), as_json=as_json, quiet=quiet, id_name="seq")
        return
    for event in found:
        out.print(f"{event['at']} {event['level']:7} {event['message']}", markup=False, soft_wrap=True)


@jobs_app.command()
def checkpoints(job: JobId, as_json: AsJson = False, quiet: Quiet = False, url: Url = None) -> None:
    """List the kept checkpoints of a job, the latest first, the best one marked."""
    with connected(url) as client:
        found = client.jobs.checkpoints(job)

    def metric(name: str, title: str) -> Column:
        return Column(title=title, value=lambda item: _figure(item["metrics"].get(name)), is_number=True)

    columns = (
        named("id", is_whole=True),
        named("stage"),
        named("step", is_number=True),
        metric("loss", "validation loss"),
        metric("rewards/accuracies", "accuracy"),
        Column(title="", value=lambda item: "best" if item["is_best"] else ""),
    )
    print_list(found, columns, as_json=as_json, quiet=quiet, nothing="No checkpoints.")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


@jobs_app.command()
def cancel(
    jobs: JobIds,
    save: Annotated[bool, typer.Option("--save", help="Publish the current policy.")] = False,
    url: Url = None,
) -> None:
    """Cancel jobs for good, each at its next step."""
    with connected(url) as client:
        for_each(jobs, lambda job: _print_status(client.jobs.cancel(job, save=save)))


@jobs_app.command()
def pause(jobs: JobIds, url: Url = None) -> None:
    """Pause jobs, each at its next step with a checkpoint, and free their devices."""
    with connected(url) as client:
        for_each(jobs, lambda job: _print_status(client.jobs.pause(job)))


@jobs_app.command()
def resume(jobs: JobIds, url: Url = None) -> None:
    """Resume paused jobs from their checkpoints."""
    with connected(url) as client:
        for_each(jobs, lambda job: _print_status(client.jobs.resume(job)))


@jobs_app.command()
def retry(job: JobId, url: Url = None) -> None:
    """Create a job that continues from the newest intact checkpoint of a failed or cancelled one, and print its id."""
    with connected(url) as client:
        out.print(client.jobs.retry(job)["id"])


@jobs_app.command()
def republish(job: JobId, url: Url = None) -> None:
    """Merge a policy again, in float32, that an earlier version merged in bf16; it replaces the old artifact."""
    with connected(url) as client:
        outcome = client.jobs.republish(job)["outcome"]
    out.print(f"manifest {outcome['manifest_sha256']}, before {outcome['manifest_sha256_before']}", markup=False)


_REQUESTED: Final = {"run": "", "pause": ", pause requested", "cancel": ", cancellation requested"}


def _print_status(job: Item) -> None:
    is_final = job["finished_at"] is not None or job["status"] == "paused"
    out.print(f"{job['id']} {job['status']}{'' if is_final else _REQUESTED[job['desired']]}", markup=False)


def _follow(client: Client, job_id: str) -> None:
    try:
        job = watch_job(client, job_id, out)
    except KeyboardInterrupt:
        err.print(f"The job continues. Watch it again: preftune watch {job_id}", markup=False)
        err.print(f"Cancel it: preftune jobs cancel {job_id}", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    if job["error"]:
        err.print(f"{job['error']['title']}: {job['error']['detail']}", markup=False, style="red")
    raise typer.Exit(EXIT_CODES[job["status"]])
