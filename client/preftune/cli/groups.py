"""Groups of commands that say what to install for a command of the service."""

from typing import Any, Final

from typer.core import TyperGroup

from preftune.cli.console import fail
from preftune.cli.extras import WORKER

SERVICE_COMMANDS: Final = frozenset(
    {
        "api",
        "backup",
        "datasets check",
        "demo",
        "doctor",
        "keys",
        "migrate",
        "models pull",
        "objects",
        "open",
        "projects",
        "restore",
        "runner",
        "serve",
        "worker",
    }
)
"""Commands that the distribution `preftune-service` adds; a test compares them with what it registers."""


class Group(TyperGroup):
    """A group whose missing commands of the service are explained."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` name; exits with code 1 where it is one of a service that is not installed."""
        if args and self.get_command(ctx, args[0]) is None:
            name = " ".join([*ctx.command_path.split()[1:], args[0]])
            if name in SERVICE_COMMANDS:
                fail(
                    f"`preftune {name}` comes with the service, which is not installed here. Install it into an "
                    "environment of its own (its packages are named api, core, worker, cli and migrations): "
                    f"pip install '{WORKER}'"
                )
        return super().resolve_command(ctx, args)
