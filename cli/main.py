"""The `preftune` command."""

import typer

from cli import dataset_commands, demo, job_commands, model_commands, service_commands

app = typer.Typer(
    name="preftune",
    help="Managed preference tuning: SFT and DPO jobs with live reward curves, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
service_commands.register(app)
job_commands.register(app)
app.command()(demo.demo)
app.add_typer(dataset_commands.app, name="datasets")
app.add_typer(model_commands.app, name="models")

if __name__ == "__main__":
    app()
