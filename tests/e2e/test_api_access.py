"""Who is served: the holder of the key, or this machine alone; and what every answer carries."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, serve

from api.server import check_binding
from core.settings import Settings, SettingsError

KEY = "pt_canary_0123456789abcdef"
OPEN_PATHS = ("/health/live", "/health/ready", "/openapi.json", "/docs", "/docs.css", "/docs.js")
CLOSED_PATHS = ("/jobs", "/datasets", "/variants", "/models", "/no/such/path")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("keyed")), api_key=KEY) as running:
        yield running


def test_with_a_key_only_its_holder_is_served(keyed: RunningApi) -> None:
    for path in CLOSED_PATHS:
        missing = keyed.http.get(path)
        assert (missing.status_code, missing.json()["code"]) == (401, "api-key-missing")
        assert missing.headers["www-authenticate"].startswith("Bearer")
        wrong = keyed.http.get(path, headers={"Authorization": f"Bearer {KEY}x"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "api-key-invalid")
        assert "invalid_token" in wrong.headers["www-authenticate"]
        assert KEY not in wrong.text
    for path in OPEN_PATHS:
        assert keyed.http.get(path).status_code == 200
    for scheme in ("Bearer", "bearer"):
        assert keyed.http.get("/jobs", headers={"Authorization": f"{scheme} {KEY}"}).status_code == 200
    # The key is what counts then, not where the request comes from.
    headers = {"Authorization": f"Bearer {KEY}", "Host": "preftune.example", "Origin": "https://preftune.example"}
    assert keyed.http.get("/jobs", headers=headers).status_code == 200


def test_an_upload_without_the_key_is_refused_before_it_is_read(keyed: RunningApi) -> None:
    response = keyed.http.post("/datasets", content=bytes(8 * 1024 * 1024))
    assert response.status_code == 401
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("host", ["preftune.example", "10.0.0.1", "127.0.0.1.example", "[::2]", "", "[", "localhost."])
def test_without_a_key_other_hosts_are_refused(api: RunningApi, host: str) -> None:
    response = api.http.get("/jobs", headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (403, "not-loopback")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8000"])
def test_without_a_key_this_machine_is_served(api: RunningApi, host: str) -> None:
    assert api.http.get("/jobs", headers={"Host": host}).status_code == 200


def test_without_a_key_pages_of_other_sites_are_refused(api: RunningApi) -> None:
    own = {"Origin": api.url}
    assert api.http.get("/jobs", headers=own).status_code == 200
    for origin in ("https://evil.example", "null", api.url.replace("http:", "https:"), "http://127.0.0.1:1"):
        for method in ("GET", "POST", "DELETE"):
            response = api.http.request(method, "/jobs", headers={"Origin": origin})
            assert (response.status_code, response.json()["code"]) == (403, "foreign-origin")
        assert "access-control-allow-origin" not in response.headers


def test_without_a_key_other_addresses_are_not_bound(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "preftune.example"):
        with pytest.raises(SettingsError, match="PREFTUNE_API_KEY"):
            check_binding(Settings(data_dir=tmp_path, host=host))
        check_binding(Settings(data_dir=tmp_path, host=host, api_key="k" * 32))  # type: ignore[arg-type]
    check_binding(Settings(data_dir=tmp_path, host="localhost"))


def test_short_bootstrap_keys_are_refused(tmp_path: Path) -> None:
    for key in ("a", "k" * 31):
        short = Settings(data_dir=tmp_path, host="0.0.0.0", api_key=key)  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=r"PREFTUNE_API_KEY.*32 characters"):
            check_binding(short)
        check_binding(short.model_copy(update={"host": "127.0.0.1"}))


def test_every_answer_carries_its_id_and_is_fit_for_a_browser(api: RunningApi) -> None:
    for path in ("/health/live", "/nope", "/docs", "/jobs?limit=x"):
        headers = api.http.get(path, headers={"X-Request-ID": "mine-1"}).headers
        assert headers["x-request-id"] == "mine-1"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
    odd = api.http.get("/health/live", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"]
    assert odd.startswith("req_")


def test_problems_of_the_framework(api: RunningApi) -> None:
    missing = api.http.get("/nope/<script>")
    assert (missing.status_code, missing.json()["code"]) == (404, "route-not-found")
    wrong = api.http.put("/jobs")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, POST")
    assert api.http.put("/jobs/preview").headers["allow"] == "POST", "what jobs take, it does not"
    for response in (missing, wrong):
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert problem.keys() >= {"type", "title", "status", "detail", "instance", "code", "request_id"}
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["x-request-id"]
        assert f'id="{problem["type"].partition("#")[2]}"' in api.http.get("/docs").text


def test_unchanged_json_is_not_sent_again(api: RunningApi) -> None:
    api.dataset_id()
    for path in ("/datasets", "/datasets/ds_1", "/variants", "/openapi.json"):
        first = api.http.get(path)
        etag = first.headers["etag"]
        for condition in (etag, f'"x", W/{etag}', "*"):
            again = api.http.get(path, headers={"If-None-Match": condition})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert api.http.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert "etag" not in api.http.get("/nope").headers


def test_unknown_query_parameters_are_refused(api: RunningApi) -> None:
    for path in ("/jobs?limit=1&foo=1", "/jobs?limit=1&limit=2", "/variants?x=%00", "/health/live?x", "/docs?x"):
        response = api.http.get(path)
        assert (response.status_code, response.json()["code"]) == (422, "invalid-request"), path
    assert api.http.get("/jobs/a%00b").status_code == 404
    assert api.http.get("/jobs/" + "x" * 100).status_code == 422


def test_the_reference_is_one_page_with_nothing_inline(api: RunningApi) -> None:
    page = api.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.count("<script") == page.text.count('<script type="module" src="docs.js"></script>') == 1
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<style" not in page.text
    assert " style=" not in page.text
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert "docs.css" in loaded
    assert [address for address in loaded if ":" in address or address.startswith("/")] == []


def test_a_request_head_that_does_not_come_is_not_waited_for(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.server.TimedH11Protocol.header_seconds", 0.2)
    port = int(api.url.rpartition(":")[2])
    for head in (b"", b"GET /health/live HT", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head)
            assert connection.recv(1000) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += connection.recv(1000)
        connection.sendall(b"GET /")  # the second head on the same connection
        assert connection.recv(1000) == b""
