"""Commands of the service, added to the client's: `python -m cli.main` has both, as `preftune` has."""

from cli import demo
from cli.commands import backups, dashboard, datasets, doctor, keys, models, objects, projects, service
from preftune.cli.commands import datasets as client_datasets
from preftune.cli.commands import models as client_models
from preftune.cli.main import app
from preftune.cli.options import SERVICE

__all__ = ["app"]

service.register(app)
backups.register(app)
app.command(rich_help_panel=SERVICE)(demo.demo)
app.command(rich_help_panel=SERVICE)(doctor.doctor)
app.command("open", rich_help_panel=SERVICE)(dashboard.open_dashboard)
app.add_typer(keys.app, name="keys", rich_help_panel=SERVICE)
app.add_typer(projects.app, name="projects", rich_help_panel=SERVICE)
app.add_typer(objects.app, name="objects", rich_help_panel=SERVICE)
client_datasets.app.command()(datasets.check)
client_models.app.command()(models.pull)

if __name__ == "__main__":
    app()
