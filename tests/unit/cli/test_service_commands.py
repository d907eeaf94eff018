"""Commands of the service in the client's command line: added where it is installed, explained where it is not."""

import subprocess
import sys

import pytest

from preftune.cli.groups import SERVICE_COMMANDS

CLIENT_ALONE = "from preftune.cli.main import app; app(prog_name='preftune')"


def commands_of(code: str) -> set[str]:
    """Names of the commands, and of those in groups, that an interpreter of its own registers."""
    listing = (
        "import typer\n"
        "for name, command in typer.main.get_command(app).commands.items():\n"
        "    print(name)\n"
        "    for inner in getattr(command, 'commands', {}): print(name, inner)\n"
    )
    return set(
        subprocess.run([sys.executable, "-c", code + listing], check=True, text=True, stdout=-1).stdout.split("\n")
    )


def test_the_list_of_the_service_s_commands_is_what_it_registers() -> None:
    alone = commands_of("from preftune.cli.main import app\n")
    whole = commands_of("from cli.main import app\n")
    added = whole - alone
    groups = {name for name in added if " " not in name}
    assert {name for name in added if name.split()[0] not in groups} | groups == SERVICE_COMMANDS


@pytest.mark.parametrize("command", [("serve", "--port", "1"), ("models", "pull", "tiny"), ("keys", "create", "ci")])
def test_without_the_service_a_command_says_what_to_install(command: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", CLIENT_ALONE, *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'preftune-service[worker]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_word_that_is_no_command_is_refused_as_such() -> None:
    done = subprocess.run([sys.executable, "-c", CLIENT_ALONE, "serv"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such command 'serv'" in done.stderr
