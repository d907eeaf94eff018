"""Commands of the service, added to the client's: `python -m cli.main` has both, as `preftune` has."""

from cli import demo
from cli.commands import backups, dashboard, datasets, doctor, keys, models, objects, projects, service
from preftune.cli.commands import datasets as client_datasets
from preftune.cli.commands import models as client_models
from preftune.cli.main import app

__all__ = ["app"]

service.register(app)
backups.register(app)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command("open")(dashboard.open_dashboard)
app.add_typer(keys.app, name="keys")
app.add_typer(objects.app, name="objects")
app.add_typer(projects.app, name="projects")
client_datasets.app.command()(datasets.check)
client_models.app.command()(models.pull)

if __name__ == "__main__":
    app()
