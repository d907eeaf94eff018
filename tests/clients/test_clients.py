"""Typed clients, generated from the live document without a patch, compile and drive a job from upload to download.

Skipped without `make client-generators`. One service for all; generators run beside one another.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from api_server import RunningApi, pairs, serve
from backends import BASE_MODEL
from clients.generators import DRIVERS, GENERATORS, HERE, INSTALLED, NODE, PYTHON, ROOT, run
from played_jobs import plays_all

KEY = "pt_typed_clients_0123456789abcdef"
STEPS = [1, 2, 3]
WORDS = {"fastmcp"}
"""Its errors are texts for a model to read."""

pytestmark = [
    pytest.mark.skipif(not INSTALLED.exists(), reason="not installed: `make client-generators`"),
    pytest.mark.timeout(1200),  # compilers, on a machine with other work
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """A service whose worker is a thread here: it takes every job that is queued."""
    with serve(Path(tmp_path_factory.mktemp("service")), api_key=KEY) as running:
        running.http.headers["Authorization"] = f"Bearer {KEY}"
        with plays_all(running, STEPS):
            yield running


@pytest.fixture(scope="module")
def folder(api: RunningApi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drivers, and the document as it is served."""
    made = Path(tmp_path_factory.mktemp("clients"))
    shutil.copytree(DRIVERS, made, dirs_exist_ok=True)
    (made / "node_modules").symlink_to(NODE / "node_modules")
    for name in ("package.json", "redocly.yaml", "spectral.yaml"):
        shutil.copy(HERE / name, made)
    for name in ("openapi.json", "v1/openapi.json"):
        (made / name.replace("/", "-")).write_bytes(api.http.get(f"/{name}").content)
    (made / "pairs.jsonl").write_bytes(pairs())
    return made


@pytest.fixture(scope="module")
def generated(api: RunningApi, folder: Path) -> Iterator[dict[str, "Future[None]"]]:
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(generate, name, folder, api.url) for name in GENERATORS}


@pytest.fixture(scope="module")
def compiled(folder: Path, generated: dict[str, "Future[None]"]) -> None:
    """All clients are type-checked together: a compiler's start is most of its time."""
    for future in generated.values():
        future.result()
    with ThreadPoolExecutor(2) as pool:
        checks = [pool.submit(run, ["tsc", "-p", "."], folder)]
        python = [generator.driver for generator in GENERATORS.values() if not generator.is_typescript]
        mypy = [ROOT / ".venv" / "bin" / "mypy", "--config-file", "mypy.ini", "--cache-dir", "mypy-cache"]
        checks.append(pool.submit(run, [*mypy, "--python-executable", PYTHON / "python", *python], folder))
        for check in checks:
            check.result()


def generate(name: str, folder: Path, url: str) -> None:
    generator = GENERATORS[name]
    if generator.command:
        run([*generator.command], folder, PREFTUNE_URL=url)
    if generator.move:
        (folder / generator.move[0]).rename(folder / generator.move[1])


@pytest.mark.parametrize("name", GENERATORS)
def test_a_client_drives_a_job_from_upload_to_download(
    api: RunningApi, folder: Path, compiled: None, name: str
) -> None:
    generator = GENERATORS[name]
    if generator.is_typescript:
        bundle = f"{generator.driver}.mjs"
        run(["esbuild", generator.driver, "--bundle", "--platform=node", "--format=esm", f"--outfile={bundle}"], folder)
        command: list[str | Path] = ["node", bundle]
    else:
        command = [PYTHON / "python", generator.driver]
    told = {"PREFTUNE_URL": api.url, "PREFTUNE_API_KEY": KEY, "BASE_MODEL": BASE_MODEL, "PAIRS": "pairs.jsonl"}
    seen = json.loads(run(command, folder, **told, NAME=name).splitlines()[-1])
    job = api.http.get(f"/jobs/{seen['job']}").json()
    assert job["spec"]["sft"]["epochs"] == 2
    assert job["metadata"] == {"by": name}
    dataset = api.http.get(f"/datasets/{seen['dataset']}").json()
    assert dataset["sha256"] == hashlib.sha256(pairs()).hexdigest()
    assert seen["steps"] == STEPS
    assert seen["found"] == [seen["job"]]
    assert seen["sha256"] == hashlib.sha256(b"weights").hexdigest()
    if name in WORDS:
        assert "job-not-found" in seen["missing"]
        assert "/dataset_id" in seen["invalid"]
        return
    assert seen["missing"] == "job-not-found"
    assert "/dataset_id" in seen["invalid"] or "/keep_checkpoints" in seen["invalid"]
    if "archive" in seen:
        archive = api.http.get(f"/jobs/{seen['job']}/artifact/archive").content
        assert seen["archive"] == len(archive)
        assert seen["lines"] == 1 + len(STEPS)
    assert seen.get("stream", ["end", "event", "metric", "status"]) == ["end", "event", "metric", "status"]


@pytest.mark.parametrize("document", ["openapi.json", "v1-openapi.json"])
def test_linters_find_nothing(folder: Path, document: str) -> None:
    run(["redocly", "lint", document, "--config", "redocly.yaml", "--max-problems", "20"], folder)
    found = run(["spectral", "lint", document, "--ruleset", "spectral.yaml", "--fail-severity", "hint"], folder)
    assert "No results with a severity of" in found
