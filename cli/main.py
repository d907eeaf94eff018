"""The `preftune` command."""

import typer

from cli import demo
from cli.commands import access, backups, dashboard, datasets, doctor, jobs, keys, models, objects, projects, service
from cli.openai_import import command as openai_import

app = typer.Typer(
    name="preftune",
    help="Managed preference tuning: SFT and DPO jobs with live reward curves, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
service.register(app)
jobs.register(app)
access.register(app)
backups.register(app)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command("open")(dashboard.open_dashboard)
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(objects.app, name="objects")
app.add_typer(projects.app, name="projects")
app.add_typer(openai_import.app, name="import")

if __name__ == "__main__":
    app()
