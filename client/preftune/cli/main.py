"""The `preftune` command: the client's commands, and where the service is installed, the service's.

A distribution adds commands by an entry point of the group `preftune.commands`: a module that registers them on `app`
when it is imported.
"""

from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as installed

import typer

from preftune.cli.commands import (
    access,
    arenas,
    chat,
    dataset_versions,
    datasets,
    feedback,
    generations,
    job_edits,
    job_pairs,
    jobs,
    judgements,
    models,
    rounds,
    sweeps,
)
from preftune.cli.console import err, out
from preftune.cli.groups import Group
from preftune.cli.openai_import import command as openai_import
from preftune.cli.options import WORKING

ENTRY_POINTS = "preftune.commands"

app = typer.Typer(
    name="preftune",
    cls=Group,
    help="Preference tuning on your own machines: SFT and DPO jobs with live curves. Start with `preftune serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
jobs.register(app)
job_edits.register(jobs.jobs_app)
job_pairs.register(jobs.jobs_app)
dataset_versions.register(datasets.app)
app.add_typer(datasets.app, name="datasets", rich_help_panel=WORKING)
app.add_typer(models.app, name="models", rich_help_panel=WORKING)
app.command(rich_help_panel=WORKING)(models.variants)
app.add_typer(sweeps.app, name="sweep", rich_help_panel=WORKING)
app.add_typer(generations.app, name="generate", rich_help_panel=WORKING)
app.add_typer(judgements.app, name="judge", rich_help_panel=WORKING)
app.add_typer(rounds.app, name="rounds", rich_help_panel=WORKING)
chat.register(app)
app.add_typer(arenas.app, name="arenas", rich_help_panel=WORKING)
app.add_typer(feedback.app, name="feedback", rich_help_panel=WORKING)
app.add_typer(openai_import.app, name="import", rich_help_panel=WORKING)
access.register(app)


@app.command(rich_help_panel=WORKING)
def version() -> None:
    """Print the version of this command."""
    out.print(f"preftune {installed('preftune')}", markup=False)


def main() -> None:
    """Run the command line with the commands of everything that is installed."""
    for entry in entry_points(group=ENTRY_POINTS):
        _load(entry)
    app(prog_name="preftune")


def _load(entry: EntryPoint) -> None:
    """Import a module of commands; one that cannot be imported is reported and takes no other command away."""
    try:
        entry.load()
    except ImportError as error:
        owner = entry.dist.name if entry.dist else entry.value
        err.print(f"warning: the commands of {owner} cannot be loaded: {error}", markup=False, style="yellow")


if __name__ == "__main__":
    main()
