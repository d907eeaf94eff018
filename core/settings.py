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

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core import failpoints
from core.secret_file import MAX_AGE_SECONDS, MAX_FILE_BYTES, SecretFile, without_line_end
from core.wording import did_you_mean

PREFIX = "PREFTUNE_"
FILE_SUFFIX = "_FILE"
PRIVATE_UMASK = 0o077
"""Files of the service are for its own user: data, keys and prompts of others stand in them."""
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
    """Bootstrap key; a file may hold one a line, all valid. Without any key only this machine's user is served."""
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
    node_address: str | None = None
    """Address of this worker in the private network of workers that train jobs on several nodes together; default: it
    takes jobs on one node only."""
    node_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port there at which the other nodes of a job meet this one; 0: a free one. Ranks use further ports."""
    gguf_converter_dir: Path | None = None
    """llama.cpp's converter, or a checkout of llama.cpp; default: `gguf-converter` in the worker's environment."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a trainer; 0: all cores."""
    confine_children: bool = True
    """Trainers, scorers, converters and the check of uploads reach their own folder only, where there is Landlock."""

    runner_kind: Literal["preftune", "vllm"] = "preftune"
    """What answers at `runner_url`: `preftune runner`, or `vllm serve`, a server of your own on a GPU."""
    runner_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Where the API finds a runner that answers chats; `preftune serve` sets it to the one that it starts."""
    runner_secret: SecretStr | None = None
    """Text that the API and its runner share; without it a runner serves this machine only. Of vLLM: its API key."""
    runner_adapters_dir: Path | None = None
    """Folder in which vLLM finds LoRA policies, at the same path as the API; default: in the data directory."""
    runner_max_adapters: Annotated[int, Field(ge=1, le=1000)] = 16
    """LoRA policies that vLLM has loaded at a time; the one used longest ago makes room."""
    runner_device: str = "cpu"
    """`cpu`, `cuda` or `cuda:<n>`: where models answer."""
    runner_threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of one model; 0: all cores."""
    runner_sharing: Literal["auto", "training-first", "equal", "never"] = "auto"
    """Whether a model may answer on a device that is training on this machine: with less of the processor, as an equal,
    or not at all; `auto`: `training-first` on the CPU, `never` on a GPU."""
    runner_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory of all loaded models together; 0: 40 % of what there is. The one used longest ago makes room."""
    runner_idle_seconds: Annotated[float, Field(gt=0)] = 600
    """After so long without a request a model is given up; the runner of `preftune serve` ends then."""
    chat_max_sequences: Annotated[int, Field(ge=1, le=1024)] = 8
    """Answers that one model writes at a time."""
    chat_max_waiting: Annotated[int, Field(ge=0, le=100_000)] = 64
    """Further answers that wait for one model; beyond that requests are refused."""
    chat_max_per_key: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Answers that one key or address may have under way in an API process; 0: that part of what a runner takes which
    `max_share` says, and as many as a model writes at a time."""
    chat_max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Most tokens of one answer."""
    chat_max_context_tokens: Annotated[int, Field(ge=16, le=10_000_000)] = 8192
    """Most tokens of prompt and answer, where the model's context holds more."""
    chat_timeout_seconds: Annotated[float, Field(gt=0)] = 300
    """Time of one request, waiting for its turn and for the model included."""

    feedback_days: Annotated[float, Field(gt=0, le=36_500)] = 30
    """How long served answers are kept (`store: true`) on which no feedback is given."""
    feedback_max_answers: Annotated[int, Field(ge=0)] = 10_000
    """Answers that a project may keep, and pieces of feedback on them."""
    feedback_max_bytes: Annotated[int, Field(ge=0)] = 256 * 1024**2
    """Size of a project's answers, with their prompts, and feedback."""

    judge_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """OpenAI-compatible address of a language model that may judge answers, up to `/v1`; default: none judges."""
    judge_model: str | None = None
    """Name of the model there."""
    judge_api_key: SecretStr | None = None
    judge_allowed_hosts: str = ""
    """Hosts and networks besides public addresses over https where that model may be, separated by commas."""
    judge_timeout_seconds: Annotated[float, Field(gt=0)] = 60
    """Time of one request."""
    judge_max_requests: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Requests that one judgement may cost, repeated ones among them."""

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

    root_path: Annotated[str, Field(pattern=r"^((/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)?$", max_length=200)] = ""
    """Path under which a proxy publishes the service, such as `/preftune`; empty: it has its host name for itself."""

    webhook_allowed_hosts: str = ""
    """Hosts, addresses and networks inside the operator's own network that webhooks may go to, with commas:
    `receiver.internal,10.0.4.0/24`; `http://` is for these only."""

    openai_base64_results: bool = False
    """`/v1` sends result files in base64, as OpenAI's own service does: for scripts that decode them untested."""

    identity_header: str | None = None
    """Header in which a trusted proxy names the signed-in user, such as `X-Forwarded-Email`; default: none."""
    identity_groups_header: str = "X-Forwarded-Groups"
    identity_roles: str = ""
    """What users and groups may, the first that matches: `ml-team=default:write, ops=default:operator, *=demo:read`."""

    max_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Part of a process's connections, streams, downloads and waiting requests that one key or address may take."""

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

    _files: dict[str, Path] = PrivateAttr(default_factory=dict)
    """Settings that came from files, by name."""

    @cached_property
    def _secret_files(self) -> dict[str, SecretFile]:
        """Files of secrets, by setting."""
        values = {name: getattr(self, name) for name in self._files}
        return {
            name: SecretFile(
                self._files[name], value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            )
            for name, value in values.items()
        }

    def current(self, name: str, *, max_age_seconds: float = MAX_AGE_SECONDS) -> str | None:
        """Return a setting as its file has it now, or as it was set; None for one that is not set."""
        if name in self._secret_files:
            return self._secret_files[name].read(max_age_seconds=max_age_seconds)
        value = getattr(self, name)
        if value is None:
            return None
        return _text(value)

    def current_secrets(self) -> list[str]:
        """Return the texts of all secrets that are in force now, a line each."""
        names = [name for name in type(self).model_fields if isinstance(getattr(self, name), SecretStr)]
        return [line.strip() for name in names for line in (self.current(name) or "").splitlines() if line.strip()]

    @property
    def bootstrap_keys(self) -> list[str]:
        """Bootstrap keys that work now, one for each line of their file; the first is the newest."""
        return [line.strip() for line in (self.current("api_key") or "").splitlines() if line.strip()]

    def current_database_url(self) -> str | None:
        """Return the URL with the password that is in force now; None for SQLite in the data directory."""
        url = self.current("database_url", max_age_seconds=0)
        if not url:
            return None
        password = self.current("database_password", max_age_seconds=0)
        return _with_password(url, SecretStr(password) if password else None)

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
    def chat_capacity(self) -> int:
        """Answers that a runner takes, written or waiting."""
        return self.chat_max_sequences + self.chat_max_waiting

    @property
    def effective_chat_max_per_key(self) -> int:
        share = max(self.chat_max_sequences, int(self.max_share * self.chat_capacity))
        return min(self.chat_capacity, self.chat_max_per_key or share)

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
        meant = did_you_mean(unknown[0].upper(), known)
        raise SettingsError(f"unknown setting {', '.join(unknown)}; {meant}known are {', '.join(sorted(known))}")
    from_files = _from_files()
    given = {name: value for name, value in overrides.items() if value is not None}
    values: dict[str, Any] = {name: text for name, (_, text) in from_files.items()} | given
    try:
        settings = Settings(**values)
    except ValidationError as error:
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(lines)) from None
    settings._files.update({name: path for name, (path, _) in from_files.items() if name not in given})
    if settings.runner_kind == "vllm" and settings.runner_url is None:
        raise SettingsError("PREFTUNE_RUNNER_URL: must be the address of the server, with PREFTUNE_RUNNER_KIND=vllm")
    if settings.lease_seconds < 3 * settings.heartbeat_seconds:
        raise SettingsError("PREFTUNE_LEASE_SECONDS: must be at least three times PREFTUNE_HEARTBEAT_SECONDS")
    return settings


def _from_files() -> dict[str, tuple[Path, str]]:
    values: dict[str, tuple[Path, str]] = {}
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        path = os.environ.get(variable + FILE_SUFFIX)
        if not path:
            continue
        if os.environ.get(variable):
            raise SettingsError(f"{variable}: set it or {variable}{FILE_SUFFIX}, not both")
        values[name] = (Path(path), _read(variable + FILE_SUFFIX, Path(path)))
    return values


def _read(variable: str, path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{variable}: {path} cannot be read ({type(error).__name__})") from None
    if len(text) > MAX_FILE_BYTES or not text.strip():
        raise SettingsError(f"{variable}: {path} is {'too large' if text.strip() else 'empty'}")
    return without_line_end(text)


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _with_password(url: str, password: SecretStr | None) -> str:
    parts = urlsplit(url)
    if password is None or parts.password is not None or parts.username is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{host}").geturl()
