"""The API for tests: a real server on a free port of loopback, SQLite, objects in a folder, no broker."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog
import uvicorn
from backends import BASE_MODEL, PROJECT, add_dataset, checkpoint_with_policy, claim, make_base_model, publication
from migrated import copy_migrated
from warm_processes import warm

from api.access.shares import Shares
from api.live.feeds import Feeds
from api.server import uvicorn_config
from core.datasets.check import check_process
from core.domain.dataset_rows import DatasetKind
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.chat.runner import Runner
from core.services.datasets import datasets
from core.settings import Settings, load_settings

START_SECONDS = 30
# As in a deployment: structlog by itself draws every local variable of a traceback, which takes it half a minute.
_PLAIN = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _PLAIN])


@dataclass(frozen=True, kw_only=True)
class RunningApi:
    url: str
    http: httpx.Client
    settings: Settings
    backend: Backend
    """The server's own, for what only workers do."""
    feeds: Feeds
    shares: Shares

    def dataset_id(self, dataset_id: str = "ds_1", kind: DatasetKind = DatasetKind.PREFERENCE) -> str:
        """A ready dataset, made without an upload unless it is there."""
        try:
            return datasets.get(self.backend, PROJECT, dataset_id).id
        except datasets.DatasetNotFound:
            return add_dataset(self.backend, dataset_id, kind)

    def submit(self, **fields: Any) -> dict[str, Any]:
        body = {"base_model": BASE_MODEL, "dataset_id": self.dataset_id()} | fields
        response = self.http.post("/jobs", json=body)
        assert response.status_code == 201, response.text
        job: dict[str, Any] = response.json()
        return job

    def finish_job(self) -> dict[str, str]:
        """A job that has succeeded, with a checkpoint, its policy and an artifact: the ids as paths name them."""
        job_id = str(self.submit()["id"])
        held = claim(self.backend)
        checkpoint_id = checkpoint_with_policy(self.backend, held, 3, {"config.json": b"{}"})
        lifecycle.finish_succeeded(held, publication(self.backend, held))
        return {"job_id": job_id, "checkpoint_id": checkpoint_id}


@contextmanager
def serve(
    folder: Path, *, from_files: bool = False, runner: Runner | None = None, **settings: Any
) -> Iterator[RunningApi]:
    """A server over `folder`; its database, where that is SQLite, is a copy of a migrated one unless it is there."""
    make_base_model(folder / "models" / BASE_MODEL)
    values = {"broker_url": "none", "sweep_seconds": 3600, "host": "127.0.0.1", "port": 0} | settings
    make = load_settings if from_files else Settings
    made = make(data_dir=folder / "data", models_dir=folder / "models", **values)
    if made.database_url is None and not (database := made.data_dir / "preftune.db").exists():
        copy_migrated(database)
    config = uvicorn_config(made)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="api under test")
    thread.start()
    try:
        port = _wait_for_port(server, thread)
        url = f"http://127.0.0.1:{port}"
        headers = {}
        if sys.platform != "linux" and made.api_key is None:  # no kernel that vouches for this process
            headers["Authorization"] = f"Bearer {(made.data_dir / 'local-key').read_text().strip()}"
        with warm(check_process), httpx.Client(base_url=url, timeout=30, headers=headers) as http:
            state = config.loaded_app.state
            if runner is not None:
                state.runner = runner
            yield RunningApi(
                url=url, http=http, settings=made, backend=state.backend, feeds=state.feeds, shares=state.shares
            )
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


def _wait_for_port(server: uvicorn.Server, thread: threading.Thread) -> int:
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        thread.join(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def pairs(num_rows: int = 3) -> bytes:
    """A well-formed file of preference pairs."""
    rows = [
        {"prompt": f"What is {n} plus one?", "chosen": f"It is {n + 1}.", "rejected": f"I guess {n}."}
        for n in range(num_rows)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def pointers(response: httpx.Response) -> list[str]:
    return [error["pointer"] for error in response.json().get("errors", [])]
