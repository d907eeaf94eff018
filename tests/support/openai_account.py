"""Stand-in for an account at OpenAI: its jobs and files, in pages, with the faults that a test plants."""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-canary-0123456789abcdef0123456789abcdef"
RESULTS = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.6931,0.0,,\n2,0.41,0.5,0.52,\n"


@dataclass(frozen=True)
class Fault:
    """What a request gets instead of its answer."""

    status: int = 0
    """0: the connection is closed without an answer."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass
class Account:
    """What the account holds. `faults`: path -> what its next requests get, one each."""

    page_limit: int = 2
    jobs: list[dict[str, Any]] = field(default_factory=list)
    """The oldest first."""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    before: Callable[[int], None] = lambda number: None
    """Is told the number of each request, from 1, before it is answered."""
    url: str = ""

    def add_job(self, number: int, kind: str = "dpo", model: str = "gpt-4o-2024-08-06", **fields: Any) -> str:
        """Add a job that has succeeded, with its result file in base64; return the model that it made."""
        outcome = f"ft:gpt-4o-2024-08-06:acme:run-{number}:abc{number}"
        figures = {"n_epochs": number, "batch_size": 4, "learning_rate_multiplier": "auto"}
        figures |= {"beta": 0.2} if kind == "dpo" else {}
        self.files[f"file-results-{number}"] = base64.b64encode(RESULTS.encode())
        job = {
            "id": f"ftjob-{number}",
            "object": "fine_tuning.job",
            "created_at": 1_700_000_000 + number,
            "model": model,
            "fine_tuned_model": outcome,
            "organization_id": "org-acme",
            "status": "succeeded",
            "training_file": "file-pairs" if kind == "dpo" else "file-chats",
            "validation_file": None,
            "result_files": [f"file-results-{number}"],
            "seed": 40 + number,
            "method": {"type": kind, kind: {"hyperparameters": figures}},
            "metadata": {"team": "a"},
            "user_provided_suffix": f"run-{number}",
            "integrations": [],
        }
        self.jobs.append(job | fields)
        return outcome


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    account: Account

    def do_GET(self) -> None:
        account, parts = self.account, urlsplit(self.path)
        path = parts.path.removeprefix("/v1/")
        account.requests.append(path)
        account.keys.append(self.headers.get("Authorization"))
        account.before(len(account.requests))
        planted = account.faults.get(path)
        if planted:
            return self._fail(planted.pop(0))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._refuse(401, f"Incorrect API key provided: {self.headers.get('Authorization')}.")
        if path == "fine_tuning/jobs":
            return self._send(200, self._page({name: values[0] for name, values in parse_qs(parts.query).items()}))
        found = re.fullmatch(r"files/([^/]+)(/content)?", path)
        if found is None:
            return self._refuse(404, f"Invalid URL (GET /v1/{path})")
        content = account.files.get(found[1])
        if content is None:
            return self._refuse(404, f"No such File object: {found[1]}")
        if found[2]:
            return self._send(200, content)
        return self._send(200, {"id": found[1], "object": "file", "bytes": len(content), "filename": "p.jsonl"})

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        """The newest first, as OpenAI lists them."""
        newest = self.account.jobs[::-1]
        ids = [job["id"] for job in newest]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        shown = newest[start : start + min(int(query["limit"]), self.account.page_limit)]
        return {"object": "list", "data": shown, "has_more": start + len(shown) < len(newest)}

    def _fail(self, fault: Fault) -> None:
        if not fault.status:
            self.close_connection = True
            return
        if fault.body is not None:
            self._send(fault.status, fault.body, fault.headers)
        else:
            told = f"Something is wrong with {self.headers.get('Authorization')}."
            self._send(fault.status, {"error": {"message": told}}, fault.headers)

    def _refuse(self, status: int, message: str) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self._send(status, {"error": error})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def run_account() -> Iterator[Account]:
    account = Account()
    handler = type("Handler", (_Handler,), {"account": account})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    account.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
