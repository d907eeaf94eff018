"""Settings: environment variables with the prefix `PREFTUNE_`, or a `.env` file. A wrong one prevents the start.

An empty one counts as not set, so that a compose file can pass on what may not be there.
"""

import os
import socket
import uuid
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core import failpoints

PREFIX = "PREFTUNE_"
FILE_SUFFIX = "_FILE"
PRIVATE_UMASK = 0o077
"""Files of the service are for its own user: data, keys and prompts of others stand in them."""
_MAX_FILE_BYTES = 64 * 1024
OTHER_VARIABLES = frozenset({"PREFTUNE_URL", failpoints.VARIABLE})
"""Read by the client package and by fault tests, not settings of the service."""


class SettingsError(Exception):
    """Raised for settings that cannot be used; the text names each variable."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path("data")
    """Database, objects and queue of the embedded deployment; scratch space of workers."""
    models_dir: Path = Path("models")
    """Base models, a folder each."""
    api_key: SecretStr | None = None
    """Bootstrap key. Without any key the API serves its own user on this machine only."""
    session_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    """Signs the dashboard's sessions; several API processes share one. Default: a file in the data directory."""

    database_url: str | None = None
    """Default: SQLite in the data directory."""
    database_password: SecretStr | None = None
    """Goes into a URL of PostgreSQL that has none; so it can come from a file."""
    broker_url: str | None = None
    """`redis://…`, `files` (default: file broker in the data directory) or `none` (poll only)."""
    storage_url: str | None = None
    """`file:///…` or `s3://bucket/prefix`. Default: a folder in the data directory."""
    s3_endpoint_url: str | None = None
    s3_public_endpoint_url: str | None = None
    """Address at which clients reach the store, where that differs: presigned addresses name it."""
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_region: str = "us-east-1"

    lease_seconds: Annotated[float, Field(gt=0)] = 60
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 5
    sweep_seconds: Annotated[float, Field(gt=0)] = 5
    poll_seconds: Annotated[float, Field(gt=0)] = 30
    """How often an idle worker looks for a job without having been woken; the embedded deployment uses 1."""
    stop_grace_seconds: Annotated[float, Field(gt=0)] = 120
    """Time between a drain or stop and SIGKILL of the trainer."""

    worker_name: str | None = None
    """Default: host, process and a random part."""
    worker_lanes: Literal["all", "training", "light"] = "all"
    """What a worker does: jobs (`training`), what is asked of finished ones, on the CPU (`light`), or both."""
    pulse_path: Path | None = None
    """A worker touches this file every second while it moves, for health checks; default: none."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:<n>`"""
    num_devices: Annotated[int, Field(ge=1)] = 1
    """Devices that train one job together, from `device` on: the model is spread over them."""
    gguf_converter_dir: Path | None = None
    """llama.cpp's converter, or a checkout of llama.cpp; default: `gguf-converter` in the worker's environment."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a trainer; 0: all cores."""
    confine_children: bool = True
    """Trainers, scorers, converters and the check of uploads reach their own folder only, where there is Landlock."""

    mlflow_tracking_uri: str | None = None
    """Workers send their curves to this MLflow server as they come; its client finds its keys by itself."""
    mlflow_experiment: str = "preftune"
    wandb_project: str | None = None
    """Workers send their curves to this project of Weights & Biases; its client reads `WANDB_API_KEY` and the like."""

    max_upload_bytes: Annotated[int, Field(gt=0)] = 5 * 1024**3
    max_decompressed_bytes: Annotated[int, Field(gt=0)] = 20 * 1024**3
    max_rows: Annotated[int, Field(gt=0)] = 5_000_000
    max_line_bytes: Annotated[int, Field(gt=0)] = 4 * 1024**2
    check_timeout_seconds: Annotated[float, Field(gt=0)] = 3600
    check_memory_bytes: Annotated[int, Field(gt=0)] = 512 * 1024**2
    """What the processes that check an upload may hold together."""

    audit_days: Annotated[float, Field(ge=1, le=36_500)] = 365
    """How long audit events are kept."""
    trusted_proxies: str = ""
    """Addresses and networks, separated by commas, whose `X-Forwarded-For`, `-Proto` and `-Host` are believed."""

    webhook_allowed_hosts: str = ""
    """Hosts, addresses and networks inside the operator's own network that webhooks may go to, with commas:
    `receiver.internal,10.0.4.0/24`; `http://` is for these only."""

    disk_reserve_bytes: Annotated[int, Field(ge=0)] = 1024**3
    """Free space below which no upload and no job is taken in any more, while running jobs may end."""
    keep_checkpoints_days: Annotated[float, Field(ge=0, le=36_500)] | None = None
    """After a job's end its checkpoints go, which ends retries from them; default: never."""
    keep_artifacts_days: Annotated[float, Field(ge=0, le=36_500)] | None = None
    """After a job's end its artifact and stage outputs go; its record, curves and events stay. Default: never."""

    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Where OpenTelemetry traces go, by OTLP over HTTP: `http://collector:4318`; needs the extra `otel`."""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @cached_property
    def effective_database_url(self) -> str:
        if self.database_url:
            return _with_password(self.database_url, self.database_password)
        return f"sqlite:///{(self.data_dir / 'preftune.db').resolve()}"

    @cached_property
    def effective_storage_url(self) -> str:
        return self.storage_url or (self.data_dir / "objects").resolve().as_uri()

    @cached_property
    def effective_broker_url(self) -> str:
        return self.broker_url or "files"

    @cached_property
    def effective_worker_name(self) -> str:
        return self.worker_name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"

    @property
    def scratch_dir(self) -> Path:
        """Spooled uploads and the work directories of attempts."""
        return self.data_dir / "scratch"


def load_settings(**overrides: object) -> Settings:
    """Load settings from environment, `.env`, files and overrides. Raises SettingsError naming the faults.

    Any setting may be given as a file that holds its value: `PREFTUNE_<NAME>_FILE`.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    accepted = known | {name + FILE_SUFFIX for name in known} | OTHER_VARIABLES
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in accepted)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = _from_files() | {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(lines)) from None
    if settings.lease_seconds < 3 * settings.heartbeat_seconds:
        raise SettingsError("PREFTUNE_LEASE_SECONDS: must be at least three times PREFTUNE_HEARTBEAT_SECONDS")
    return settings


def _from_files() -> dict[str, str]:
    values: dict[str, str] = {}
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        path = os.environ.get(variable + FILE_SUFFIX)
        if not path:
            continue
        if os.environ.get(variable):
            raise SettingsError(f"{variable}: set it or {variable}{FILE_SUFFIX}, not both")
        values[name] = _read(variable + FILE_SUFFIX, Path(path))
    return values


def _read(variable: str, path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{variable}: {path} cannot be read ({type(error).__name__})") from None
    if len(text) > _MAX_FILE_BYTES or not text.strip():
        raise SettingsError(f"{variable}: {path} is {'too large' if text.strip() else 'empty'}")
    return text.removesuffix("\n").removesuffix("\r")


def _with_password(url: str, password: SecretStr | None) -> str:
    parts = urlsplit(url)
    if password is None or parts.password is not None or parts.username is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{host}").geturl()
