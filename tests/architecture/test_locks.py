"""The images' locked packages are those of pyproject.toml at the versions of constraints.txt, each with its hashes."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
API, WORKER = ("requirements-api.txt", "requirements-worker.txt")
CUDA, CPU = ("requirements-torch-cuda.txt", "requirements-torch-cpu.txt")
BUILD, DEV = "requirements-build.txt", "requirements-dev.txt"
ENTRY = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[\w.+]+)(?: ; [^\\]+)?(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$"
)
OF_TORCH = {"nvidia", "cuda", "triton", "torch"}


def locked(*names: str) -> dict[str, str]:
    """Name to version; fails on a line that is none of the form that pip wants with --require-hashes."""
    found = {}
    for name in names:
        text = (ROOT / "docker" / name).read_text(encoding="utf-8")
        for entry in re.split(r"\n(?=\w)", text.rstrip("\n"))[1:]:  # but for its head
            match = ENTRY.match(entry)
            assert match, entry[:80]
            found[canonicalize_name(match["name"])] = match["version"]
    return found


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def project_of(path: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
    return project


def needed(*extras: str) -> set[str]:
    """What the extras bring along on this machine, as far as it is installed here."""
    projects = {project["name"]: project for project in map(project_of, ("pyproject.toml", "client/pyproject.toml"))}
    service = projects["preftune-service"]
    queue = [line for project in projects.values() for line in project["dependencies"]]
    queue += [line for extra in extras for line in service["optional-dependencies"][extra]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        wanted = Requirement(queue.pop())
        place = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if place in seen or place[0] in projects:
            continue
        seen.add(place)
        try:
            lines = requires(wanted.name) or []
        except PackageNotFoundError:  # of another platform's torch
            continue
        for line in lines:
            marker = Requirement(line).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                queue.append(line)
    return {name for name, _ in seen}


@pytest.mark.parametrize(
    ("extras", "files"),
    [
        (("otel",), (API,)),
        (("worker", "otel"), (WORKER, CUDA)),
        (("worker", "otel"), (WORKER, CPU)),
    ],
    ids=["api", "worker with CUDA", "worker without"],
)
def test_an_image_installs_what_is_named_and_pinned(extras: tuple[str, ...], files: tuple[str, ...]) -> None:
    """After a change of pyproject.toml or constraints.txt: `make lock`."""
    versions = locked(*files)
    missing = needed(*extras) - versions.keys()
    assert missing == set()
    assert not {"pytest", "mypy", "hypothesis"} & versions.keys()
    pins = pinned()
    assert {name: version.removesuffix("+cpu") for name, version in versions.items() if name in pins} == {
        name: pins[name] for name in versions if name in pins
    }


def test_torch_is_apart_from_what_both_of_its_builds_share() -> None:
    assert locked(CPU) == {"torch": locked(CUDA)["torch"] + "+cpu"}
    assert {name.partition("-")[0] for name in locked(CUDA)} == OF_TORCH
    assert not OF_TORCH & {name.partition("-")[0] for name in [*locked(WORKER), *locked(API)]}


def test_our_own_code_is_built_by_what_is_locked() -> None:
    assert locked(BUILD) == {"setuptools": locked(WORKER)["setuptools"]}


@pytest.mark.parametrize(("name", "num_commands"), [("api", 4), ("proxy", 1), ("worker", 4)])
def test_an_image_takes_nothing_from_an_index_but_by_its_hash(name: str, num_commands: int) -> None:
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"pip[^&\n]* (?:install|wheel|download) [^&\n]*", text)
    assert len(commands) == num_commands
    for command in commands:
        assert "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command, command
        assert "--no-index" not in command or " wheel " not in command or "--no-build-isolation" in command, command


def test_make_venv_installs_only_what_is_hashed() -> None:
    """Everything of the extra `dev` is locked, and the recipe installs nothing else but our own code."""
    versions = locked(DEV, CPU)
    assert needed("dev") - versions.keys() <= {"preftune", "preftune-service"}
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("$(VENV)/.installed:")[2].partition("\n\n")[0]
    installs = [line for line in recipe.splitlines() if " pip install " in line or "HASHED" in line or "TORCH" in line]
    assert len(installs) == 4
    for line in installs:
        is_ours = "--no-deps --no-build-isolation -e client -e ." in line
        has_own_hashes = line.endswith("-r requirements-gguf.txt")  # pip then wants one for every file
        assert is_ours or has_own_hashes or "$(HASHED)" in line, line
