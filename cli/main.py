"""The `preftune` command."""

import typer

from cli import (
    dataset_commands,
    demo,
    doctor,
    job_commands,
    key_commands,
    model_commands,
    object_commands,
    project_commands,
    service_commands,
)

app = typer.Typer(
    name="preftune",
    help="Managed preference tuning: SFT and DPO jobs with live reward curves, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
service_commands.register(app)
job_commands.register(app)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.add_typer(dataset_commands.app, name="datasets")
app.add_typer(model_commands.app, name="models")
app.add_typer(key_commands.app, name="keys")
app.add_typer(object_commands.app, name="objects")
app.add_typer(project_commands.app, name="projects")

if __name__ == "__main__":
    app()
