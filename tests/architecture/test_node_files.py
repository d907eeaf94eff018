"""examples/nodes: files that start workers for jobs on several nodes; their syntax, and only settings that exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import FILE_SUFFIX, PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "nodes"
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
OWN = {"PREFTUNE_ENVIRONMENT"}
"""Read by the batch file itself."""


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_setting_exists_and_the_address_is_set(path: Path) -> None:
    named = set(re.findall(r"PREFTUNE_[A-Z0-9_]+", path.read_text(encoding="utf-8")))
    assert "PREFTUNE_NODE_ADDRESS" in named
    assert {name.removesuffix(FILE_SUFFIX) for name in named} - SETTINGS - OWN == set()


def test_the_batch_file_is_bash_and_takes_the_address_of_an_interface(tmp_path: Path) -> None:
    """Its inner script runs here, on loopback, with a worker that tells its settings."""
    path = FOLDER / "worker.sbatch"
    subprocess.run(["bash", "-n", str(path)], check=True)
    inner = re.search(r"bash -c '\n(.*?)\n'\n", path.read_text(encoding="utf-8"), re.DOTALL)
    assert inner is not None
    (tmp_path / "preftune").write_text('#!/bin/sh\necho "$1 $PREFTUNE_NODE_ADDRESS $PREFTUNE_DATA_DIR"\n')
    (tmp_path / "preftune").chmod(0o755)
    (tmp_path / "ip").write_text('#!/bin/sh\necho "7: $6    inet 10.1.2.3/24 brd 10.1.2.255 scope global $6"\n')
    (tmp_path / "ip").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": "/local", "SLURM_JOB_ID": "42"}
    done = subprocess.run(["bash", "-c", inner[1]], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "worker 10.1.2.3 /local/preftune-42\n"


def test_the_manifests_name_each_other() -> None:
    service, workers, policy = yaml.safe_load_all((FOLDER / "statefulset.yml").read_text(encoding="utf-8"))
    kinds = [item["kind"] for item in (service, workers, policy)]
    assert kinds == ["Service", "StatefulSet", "NetworkPolicy"]
    labels = workers["spec"]["template"]["metadata"]["labels"]
    assert workers["spec"]["serviceName"] == service["metadata"]["name"]
    assert workers["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    pod = workers["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["terminationGracePeriodSeconds"] > Settings.model_fields["stop_grace_seconds"].default


def test_the_compose_file_is_whole() -> None:
    compose: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text(encoding="utf-8"))
    worker = compose["services"]["worker"]
    assert worker["network_mode"] == "host"
    assert set(worker["secrets"]) == set(compose["secrets"])
    assert {volume.split(":")[0] for volume in worker["volumes"]} == set(compose["volumes"])
