"""docker-compose.yml and .env.example: what every service must have, and only settings that exist."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import FILE_SUFFIX, PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STAYS = [name for name, service in SERVICES.items() if service.get("restart") == "unless-stopped"]
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
OF_COMPOSE = {
    "PREFTUNE_PUBLISH",
    "PREFTUNE_DOMAIN",
    "PREFTUNE_HTTP_PORT",
    "PREFTUNE_HTTPS_PORT",
    "PREFTUNE_EDGE_SUBNET",
}


def test_what_stays_up_is_watched_and_bounded() -> None:
    assert {"api", "worker", "worker-gpu", "light", "runner", "postgres", "redis", "store"} == {*STAYS}
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
    for name in STAYS:
        assert SERVICES[name]["healthcheck"]["test"], name
        assert SERVICES[name]["healthcheck"]["retries"] >= 3, f"{name}: one late answer is no illness"


@pytest.mark.parametrize("name", ["worker", "worker-gpu", "light"])
def test_a_worker_is_asked_for_the_pulse_it_was_told_to_give(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["PREFTUNE_PULSE_PATH"] in service["healthcheck"]["test"][1].split()


@pytest.mark.parametrize("name", SERVICES)
def test_every_setting_exists(name: str) -> None:
    given = {key for key in SERVICES[name].get("environment", {}) if key.startswith(PREFIX)}
    assert {key.removesuffix(FILE_SUFFIX) for key in given} <= SETTINGS


def test_every_line_of_the_example_is_read() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    variables = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", example, flags=re.MULTILINE))
    places = ("docker-compose.yml", "docker-compose.tls.yml", "docker/make-secrets.sh")
    read = "".join((ROOT / place).read_text(encoding="utf-8") for place in places)
    own = {"COMPOSE_FILE", "COMPOSE_PROFILES"}
    assert {name for name in variables - own if not re.search(rf"\b{name}\b", read)} == set()
    assert {name for name in variables if name.startswith(PREFIX)} <= SETTINGS | OF_COMPOSE


def test_models_are_written_only_by_what_pulls_them() -> None:
    """A trainer that was taken over must not change the base model of every later job."""
    writers = set()
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            if volume.startswith("models:") and not volume.endswith(":ro"):
                writers.add(name)
    assert writers == {"models", "demo"}


def test_the_script_makes_the_secrets_that_are_missing_and_keeps_the_others(tmp_path: Path) -> None:
    """An installation of an earlier version has fewer, and compose does not start without the file of one."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "api_key").write_text("pt_kept\n")
    environment = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(folder)}
    subprocess.run(["sh", ROOT / "docker" / "make-secrets.sh"], env=environment, check=True, timeout=30)
    files = {secret["file"].rpartition("/")[2] for secret in COMPOSE["secrets"].values()}
    assert {path.name for path in folder.iterdir()} == files
    assert (folder / "api_key").read_text() == "pt_kept\n"
    assert all(path.read_text().strip() for path in folder.iterdir())
