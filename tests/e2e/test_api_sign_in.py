"""Signing in and out: throttled by address and for all, ended on the server, and no stream outlives its key."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, serve

from api.access.failures import SIGN_IN_OF_ADDRESS, Bounds
from core.domain.access import Scope
from core.services.access import api_keys

KEY = "pt_canary_0123456789abcdef0123456789abcdef"
COOKIE, SECURE_COOKIE = "preftune_session", "__Host-preftune_session"
END_SECONDS = 8
"""More than two seconds of a known key and two between looks, on a busy machine."""


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[RunningApi]:
    with serve(tmp_path, api_key=KEY, trusted_proxies="127.0.0.1") as api:
        yield api


def sign_in(api: RunningApi, key: str, address: str = "203.0.113.1", **more: str) -> httpx.Response:
    headers = {"Origin": api.url, "X-Forwarded-For": address} | more
    return httpx.post(f"{api.url}/ui/session", json={"api_key": key}, headers=headers)


def failures(api: RunningApi) -> dict[str, float]:
    text = api.http.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    lines = [line for line in text.splitlines() if line.startswith("preftune_auth_failures_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_wrong_sign_ins_are_throttled_by_address(keyed: RunningApi) -> None:
    """The review's probe: 150 wrong ones in a row were 150 x 401."""
    answers = [sign_in(keyed, f"wrong-{n}") for n in range(150)]
    codes = [answer.json()["code"] for answer in answers]
    assert set(codes) == {"api-key-invalid", "sign-in-throttled"}
    assert SIGN_IN_OF_ADDRESS.burst <= codes.count("api-key-invalid") <= SIGN_IN_OF_ADDRESS.burst + 3
    refused = answers[-1]
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    right = sign_in(keyed, KEY)
    assert (right.status_code, right.json()["code"]) == (429, "sign-in-throttled"), "it tells nothing of the key"
    assert sign_in(keyed, KEY, address="203.0.113.2").status_code == 204
    counted = failures(keyed)
    assert counted["sign_in"] == codes.count("api-key-invalid")
    assert counted["sign_in_throttled"] == codes.count("sign-in-throttled") + 1
    bearer = {"Authorization": f"Bearer {KEY}", "X-Forwarded-For": "203.0.113.1"}
    assert keyed.http.get("/jobs", headers=bearer).status_code == 200, "holders of a key go on"
    events = keyed.http.get("/audit", params={"action": "session.sign_in", "limit": 100}, headers=bearer).json()["data"]
    assert {(event["outcome"], event["address"]) for event in events} == {
        ("refused", "203.0.113.1"),
        ("done", "203.0.113.2"),
    }


@pytest.fixture
def strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApi]:
    monkeypatch.setattr("api.access.authentication.KEYS_OF_ADDRESS", Bounds(burst=5, seconds=600))
    with serve(tmp_path, api_key=KEY, trusted_proxies="127.0.0.1") as api:
        yield api


def test_keys_that_worked_are_not_throttled_with_those_that_never_did(strict: RunningApi) -> None:
    keyed = strict
    token = api_keys.create(keyed.backend, "default", "known", Scope.READ).token
    new = api_keys.create(keyed.backend, "default", "new", Scope.READ).token

    def ask(key: str) -> str:
        answer = keyed.http.get("/jobs", headers={"Authorization": f"Bearer {key}", "X-Forwarded-For": "203.0.113.9"})
        return "ok" if answer.status_code == 200 else str(answer.json()["code"])

    assert ask(token) == "ok"
    codes = [ask(f"pt_{n}") for n in range(8)]
    assert codes == ["api-key-invalid"] * 5 + ["sign-in-throttled"] * 3
    assert ask(token) == "ok"
    assert ask(new) == "sign-in-throttled", "right or wrong: nobody learns which"
    assert failures(keyed)["key_throttled"] == 4


def test_signing_out_ends_the_session_for_every_copy_of_its_cookie(keyed: RunningApi) -> None:
    cookie = {COOKIE: sign_in(keyed, KEY).cookies[COOKIE]}
    other = {COOKIE: sign_in(keyed, KEY).cookies[COOKIE]}
    own = {"Origin": keyed.url}
    assert httpx.get(f"{keyed.url}/jobs", cookies=cookie).status_code == 200
    assert httpx.delete(f"{keyed.url}/ui/session", cookies=cookie, headers=own).status_code == 204
    assert httpx.get(f"{keyed.url}/jobs", cookies=cookie).status_code == 401
    assert httpx.get(f"{keyed.url}/jobs", cookies=other).status_code == 200, "another browser stays"
    bearer = {"Authorization": f"Bearer {KEY}"}
    actions = [event["action"] for event in keyed.http.get("/audit", headers=bearer).json()["data"]]
    assert actions == ["session.sign_out", "session.sign_in", "session.sign_in"]


def test_another_process_knows_of_it_within_seconds(keyed: RunningApi, tmp_path: Path) -> None:
    secret = (keyed.settings.data_dir / "session-secret").read_text().strip()
    url = keyed.settings.effective_database_url
    with serve(tmp_path / "two", api_key=KEY, session_secret=secret, database_url=url) as second:
        cookie = {COOKIE: sign_in(keyed, KEY).cookies[COOKIE]}
        assert httpx.get(f"{second.url}/jobs", cookies=cookie).status_code == 200
        httpx.delete(f"{keyed.url}/ui/session", cookies=cookie, headers={"Origin": keyed.url})
        deadline = time.monotonic() + END_SECONDS
        while httpx.get(f"{second.url}/jobs", cookies=cookie).status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_under_https_only_the_host_cookie_counts(keyed: RunningApi) -> None:
    """Another port or a sibling domain can plant a cookie, but none of that name."""
    https = {"X-Forwarded-Proto": "https"}
    answer = sign_in(keyed, KEY, **https)
    token = answer.cookies[SECURE_COOKIE]
    assert COOKIE not in answer.cookies
    plain = sign_in(keyed, KEY).cookies[COOKIE]

    def status(cookies: dict[str, str], headers: dict[str, str]) -> int:
        return httpx.get(f"{keyed.url}/jobs", cookies=cookies, headers=headers).status_code

    assert status({SECURE_COOKIE: token}, https) == 200
    assert status({COOKIE: plain}, https) == 401
    assert status({COOKIE: token}, https) == 401, "what was issued for https is taken under its own name only"
    assert status({COOKIE: token}, {}) == 401
    assert status({SECURE_COOKIE: plain}, {}) == 401
    assert status({SECURE_COOKIE: "x", COOKIE: plain}, {}) == 401
    assert status({COOKIE: plain}, {}) == 200


@pytest.mark.parametrize("way", ["revoked", "expired", "signed out"])
def test_a_stream_ends_with_its_key_or_session(keyed: RunningApi, way: str) -> None:
    keyed.http.headers["Authorization"] = f"Bearer {KEY}"
    job_id = str(keyed.submit()["id"])
    lifetime = 4.0 if way == "expired" else None
    made = api_keys.create(keyed.backend, "default", "short", Scope.READ, lifetime_seconds=lifetime)
    headers, cookies = {"Authorization": f"Bearer {made.token}"}, {}
    if way == "signed out":
        headers, cookies = {}, {COOKIE: sign_in(keyed, made.token).cookies[COOKIE]}
    ended = threading.Event()
    began = threading.Event()

    def listen() -> None:
        path = f"/jobs/{job_id}/stream"
        with (
            httpx.Client(base_url=keyed.url, headers=headers, cookies=cookies) as http,
            http.stream("GET", path, timeout=30) as answer,
        ):
            assert answer.status_code == 200
            began.set()
            for _ in answer.iter_lines():
                pass
        ended.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert began.wait(10)
    if way == "revoked":
        api_keys.revoke(keyed.backend, made.key.id)
    elif way == "signed out":
        httpx.delete(f"{keyed.url}/ui/session", cookies=cookies, headers={"Origin": keyed.url})
    assert ended.wait(END_SECONDS + (lifetime or 0)), "the stream outlives what opened it"
    thread.join()
    with httpx.stream("GET", f"{keyed.url}/jobs/{job_id}/stream", headers=headers, cookies=cookies) as again:
        assert again.status_code == 401
