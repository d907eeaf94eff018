"""Commands `preftune jobs rename | edit | delete`."""

from typing import Annotated, Any

import typer

from preftune.cli.commands.jobs import JobId, JobIds
from preftune.cli.console import confirm, connected, fail, for_each, out
from preftune.cli.options import Url, Yes


def register(group: typer.Typer) -> None:
    for command in (rename, edit, delete):
        group.command()(command)


def rename(
    job: JobId,
    name: Annotated[str, typer.Argument(metavar="NAME", help='The new name; "" removes it.')],
    url: Url = None,
) -> None:
    """Give a job another name."""
    with connected(url) as client:
        client.jobs.patch(job, name=name or None)


def edit(
    job: JobId,
    tag: Annotated[list[str] | None, typer.Option(help="Add a tag. Repeatable.")] = None,
    remove_tag: Annotated[list[str] | None, typer.Option(help="Remove a tag. Repeatable.")] = None,
    notes: Annotated[str | None, typer.Option(help='Replace the notes; "" removes them.')] = None,
    priority: Annotated[int | None, typer.Option(help="Jobs of a higher priority run first.")] = None,
    url: Url = None,
) -> None:
    """Change tags, notes and priority of a job, and print its tags and notes as they are then."""
    for one in tag or ():
        if not one.strip() or "," in one:
            fail(f"--tag: {one!r} is empty or has a comma; give each tag by itself", code=2)
    with connected(url) as client:
        metadata = dict(client.jobs.get(job)["metadata"])
        changes: dict[str, Any] = {} if priority is None else {"priority": priority}
        if tag or remove_tag or notes is not None:
            changes["metadata"] = _changed(metadata, tag or [], remove_tag or [], notes)
        changed = client.jobs.patch(job, **changes) if changes else client.jobs.get(job)
    for name in ("tags", "notes"):
        if text := changed["metadata"].get(name):
            out.print(f"{name}: {text}", markup=False, soft_wrap=True)


def _changed(metadata: dict[str, str], added: list[str], removed: list[str], notes: str | None) -> dict[str, str]:
    """Return the metadata with tags and notes changed; what is empty is left out."""
    before = [tag.strip() for tag in metadata.get("tags", "").split(",")]
    tags = [tag for tag in dict.fromkeys([*before, *(tag.strip() for tag in added)]) if tag and tag not in removed]
    own = {"tags": ", ".join(tags), "notes": metadata.get("notes", "") if notes is None else notes}
    return {name: value for name, value in {**metadata, **own}.items() if value or name not in own}


def delete(jobs: JobIds, yes: Yes = False, url: Url = None) -> None:
    """Delete finished jobs with their curves, checkpoints and policies. Asks first in a terminal."""
    what = jobs[0] if len(jobs) == 1 else f"these {len(jobs)} jobs"
    confirm(f"Delete {what} with curves, checkpoints and policy?", yes)
    with connected(url) as client:
        for_each(jobs, client.jobs.delete)
