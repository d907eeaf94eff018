"""A service without keys: its own user's programs are served, whatever stands between it and others is not."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from nginx_proxy import NGINX, bare, nginx

from core.services.access import api_keys
from core.services.access.api_keys import Scope

ASK = """
import http.client, socket, sys
url, address = sys.argv[1:]
kept = socket.create_server((address, 0)) if address else None
connection = http.client.HTTPConnection(url.removeprefix("http://"))
connection.request("GET", "/jobs")
print(connection.getresponse().status)
"""


@pytest.fixture
def keyless(tmp_path: Path) -> Iterator[RunningApi]:
    with serve(tmp_path) as running:
        yield running


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_bare_proxy_opens_nothing(keyless: RunningApi, tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx", bare(keyless.url)) as address, httpx.Client(base_url=address) as anybody:
        for host in ("tune.example.org", "127.0.0.1", "localhost:8000"):
            answer = anybody.get("/jobs", headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (401, "api-key-missing")
            assert anybody.post("/datasets", content=pairs(), headers={"Host": host}).status_code == 401
        assert anybody.get("/metrics").status_code == 401
        assert anybody.get("/ui/session").json() == {"needs_key": True, "is_signed_in": False, "scope": None}
        assert anybody.get("/health/live").status_code == 200
    assert keyless.http.get("/jobs").status_code == 200


def ask(url: str, listens_on: str = "") -> int:
    done = subprocess.run(
        ["/usr/bin/env", "-i", sys.executable, "-c", ASK, url, listens_on],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        timeout=30,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the key file decides")
def test_only_private_processes_of_the_own_user_are_served(keyless: RunningApi) -> None:
    assert ask(keyless.url) == 200
    assert ask(keyless.url, listens_on="127.0.0.1") == 200
    assert ask(keyless.url, listens_on="0.0.0.0") == 401, "a proxy of our own user listens too"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as others")
def test_another_user_of_the_machine_is_nobody(keyless: RunningApi) -> None:
    python = subprocess.run(["/usr/bin/python3", "-c", ""], user=65534, check=False)
    if python.returncode:
        pytest.skip("no Python that everybody may run")
    done = subprocess.run(
        ["/usr/bin/python3", "-c", ASK, keyless.url, ""],
        capture_output=True,
        text=True,
        user=65534,
        cwd="/",
        check=True,
    )
    assert int(done.stdout) == 401


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Whatever", "Forwarded", "Via", "X-Real-IP"]
)
def test_what_was_forwarded_is_refused(keyless: RunningApi, header: str) -> None:
    answer = keyless.http.get("/jobs", headers={header: "127.0.0.1"})
    assert (answer.status_code, answer.json()["code"]) == (403, "not-loopback")


def test_the_key_file_serves_those_whom_nothing_vouches_for(
    keyless: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.access.authentication.is_vouched", lambda *_: False)
    with httpx.Client(base_url=keyless.url) as somebody:
        assert somebody.get("/jobs").status_code == 401
        assert somebody.get("/jobs", headers={"Authorization": "Bearer pt_local_0"}).status_code == 401
        key = (keyless.settings.data_dir / "local-key").read_text().strip()
        assert somebody.get("/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        signed_in = somebody.post("/ui/session", json={"api_key": key}, headers={"Origin": keyless.url})
        assert signed_in.status_code == 204
        assert somebody.get("/jobs").status_code == 200
        assert somebody.get("/ui/session").json() == {"needs_key": True, "is_signed_in": True, "scope": "operator"}
        # The first key that is made ends all that.
        api_keys.create(keyless.backend, "default", "first", Scope.ADMIN)
        monkeypatch.setattr("api.access.key_ring.MAX_AGE_SECONDS", 0.0)
        assert somebody.get("/jobs").status_code == 401
        assert somebody.get("/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_an_expired_last_key_does_not_open_the_service(keyless: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.key_ring.MAX_AGE_SECONDS", 0.0)
    expiring = api_keys.create(keyless.backend, "default", "short", Scope.ADMIN, lifetime_seconds=0.05)
    revoked = api_keys.create(keyless.backend, "default", "revoked", Scope.ADMIN)
    api_keys.revoke(keyless.backend, revoked.key.id)
    time.sleep(0.1)
    for headers in ({}, {"Authorization": f"Bearer {expiring.token}"}, {"Authorization": f"Bearer {revoked.token}"}):
        for path in ("/jobs", "/metrics"):
            assert keyless.http.get(path, headers=headers).status_code == 401


def test_the_database_alone_makes_no_session_and_is_private(keyless: RunningApi) -> None:
    folder = keyless.settings.data_dir
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path.name
    secret = (folder / "session-secret").read_text().strip()
    assert len(secret) == 64
    for name in folder.glob("preftune.db*"):
        assert secret.encode() not in name.read_bytes()
