"""The two wheels in environments of their own: the client beside a project's own `api` and `core`, the service alone.

What the distributions need is installed from the index. torch and what belongs to it are gigabytes: the service's
environment sees the ones that are installed here.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from backends import BASE_MODEL
from deployments import QUICK, reach, start
from servers import free_port
from tiny_models import make_tiny_model

from preftune import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600
TOOL = {
    "pyproject.toml": "[project]\nname = 'internal-tool'\nversion = '1'\n"
    "[tool.setuptools]\npackages = ['api', 'core']\n",
    "api/__init__.py": 'OWNER = "internal-tool"\n',
    "core/__init__.py": 'OWNER = "internal-tool"\n',
}
JOB = {"max_length": 128, "sft": {"epochs": 1}, "dpo": {"epochs": 1}}


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, outside the checkout: nothing of this test's environment shows through."""
    ours = ("PREFTUNE_", "PYTHON", "VIRTUAL")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        list(command), cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=SECONDS
    )


def must(command: Sequence[str | Path], folder: Path) -> str:
    done = run(command, folder)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment_in(folder: Path) -> Path:
    """Return the `bin` folder of a fresh virtual environment."""
    must([Path(sys.base_exec_prefix) / "bin" / "python3", "-m", "venv", folder], folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build both from the checkout; name of the distribution to its wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    must([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT / "client", ROOT], folder)
    return {path.name.partition("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Path:
    """The `bin` folder of an environment with the service, in a path with a space."""
    binaries = environment_in(tmp_path_factory.mktemp("a folder") / "with spaces")
    links = wheels["preftune"].parent
    command = [binaries / "pip", "install", "-q", "-c", ROOT / "constraints.txt", "--find-links", links]
    must([*command, "preftune-service"], links)
    return binaries


def top_level(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" not in name}


def test_the_client_installs_one_package(wheels: dict[str, Path]) -> None:
    assert top_level(wheels["preftune"]) == {"preftune"}
    assert top_level(wheels["preftune-service"]) == {"api", "cli", "core", "migrations", "worker"}


def test_the_client_beside_a_project_with_its_own_api_and_core(tmp_path: Path, wheels: dict[str, Path]) -> None:
    binaries = environment_in(tmp_path / "env")
    tool = tmp_path / "tool"
    for name, text in TOOL.items():
        (tool / name).parent.mkdir(parents=True, exist_ok=True)
        (tool / name).write_text(text)
    must([binaries / "pip", "install", "-q", wheels["preftune"], tool], tmp_path)
    must([binaries / "pip", "check"], tmp_path)
    code = "import api, core, preftune, preftune.cli.main; print(api.OWNER, core.OWNER, preftune.Client.__name__)"
    assert must([binaries / "python", "-c", code], tmp_path).split() == ["internal-tool", "internal-tool", "Client"]
    assert "submit" in must([binaries / "preftune", "--help"], tmp_path)
    served = run([binaries / "preftune", "serve"], tmp_path)
    assert served.returncode == 1
    assert "pip install 'preftune-service[worker]'" in served.stderr
    listed = run([binaries / "preftune", "jobs", "list", "--url", f"http://127.0.0.1:{free_port()}"], tmp_path)
    assert (listed.returncode, "Traceback" in listed.stderr) == (1, False)


def test_the_api_runs_from_its_wheel(tmp_path: Path, service: Path) -> None:
    """Migrations, dashboard, example data: all comes out of the wheel. Only training needs more, and says what."""
    port = free_port()
    settings = {"PORT": str(port), "DATA_DIR": str(tmp_path / "the data")}
    code = "import api, core, cli, worker, migrations; print(api.__path__[0])"
    assert must([service / "python", "-c", code], tmp_path).startswith(str(service.parent))
    with start("migrate", tmp_path, settings, [str(service / "preftune"), "migrate"]) as process:
        assert process.wait(60) == 0, (tmp_path / "migrate.log").read_text()
    with start("api", tmp_path, settings, [str(service / "preftune"), "api"]) as process:
        reach(Client(f"http://127.0.0.1:{port}"), tmp_path, settings, process, seconds=SECONDS)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            assert http.get("/health/ready").status_code == 200
            assert http.get("/ui/app.js").content == (ROOT / "api/web/ui/app.js").read_bytes()
            assert http.get("/docs").status_code == 200
    examples = "import cli.demo as demo; print(demo.TRAINING_FILE.stat().st_size + demo.HELD_OUT_FILE.stat().st_size)"
    sizes = [path.stat().st_size for path in (ROOT / "examples").glob("*.jsonl")]
    assert int(must([service / "python", "-c", examples], tmp_path)) == sum(sizes)
    trained = run([service / "preftune", "worker"], tmp_path, PREFTUNE_DATA_DIR=settings["DATA_DIR"])
    assert (trained.returncode, "preftune-service[worker]" in trained.stderr) == (1, True), trained.stderr


def test_a_job_runs_from_the_wheel(tmp_path: Path, service: Path) -> None:
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    must(
        [
            service / "python",
            "-c",
            "import pathlib, site, sys; pathlib.Path(site.getsitepackages()[0], 'torch.pth').write_text(sys.argv[1])",
            Path(torch.origin).parents[1],
        ],
        tmp_path,
    )
    port = free_port()
    settings = QUICK | {"PORT": str(port), "DATA_DIR": str(tmp_path / "d"), "MODELS_DIR": str(tmp_path / "my models")}
    make_tiny_model(tmp_path / "my models" / BASE_MODEL)
    with start("serve", tmp_path, settings, [str(service / "preftune"), "serve"]) as process:
        client = reach(Client(f"http://127.0.0.1:{port}"), tmp_path, settings, process, seconds=SECONDS).client
        rows = [{"prompt": f"Name {n}.", "chosen": f"It is {n}, sir.", "rejected": f"No {n}."} for n in range(12)]
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        dataset = client.datasets.upload(tmp_path / "pairs.jsonl")
        job = client.jobs.submit(base_model=BASE_MODEL, dataset_id=dataset["id"], **JOB)
        ended = client.jobs.wait(job["id"], timeout_seconds=240)
        assert ended["status"] == "succeeded", (ended["error"], (tmp_path / "serve.log").read_text()[-3000:])
        assert (client.jobs.download(job["id"], tmp_path / "policy") / "model.safetensors").stat().st_size > 0
