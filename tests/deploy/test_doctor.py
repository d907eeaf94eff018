"""`preftune doctor --url` behind real proxies: no fault of the documented configurations, each fault of a bare one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, serve
from deploy import proxies
from deploy.programs import open_folder
from nginx_proxy import bare, nginx

from core.services.operations.diagnosis import CheckFinding
from core.services.operations.way_in import check_way_in

KEY = "pt_canary_0123456789abcdef_0123456789"
GIB = 1024**3


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("doctor")), api_key=KEY, trusted_proxies="127.0.0.1") as running:
        yield running


def findings(url: str) -> dict[str, CheckFinding]:
    return {finding.name: finding for finding in check_way_in(url, 5 * GIB)}


def behind_nginx(api: RunningApi, *lines: str) -> dict[str, CheckFinding]:
    """Return what is found behind nginx with these lines in its location."""
    location = bare(api.url).replace("}", " ".join(lines) + " }")
    with open_folder("nginx") as folder, nginx(folder / "files", location) as url:
        return findings(url)


@pytest.mark.parametrize("name", proxies.NAMES)
def test_the_documented_configurations_have_no_fault(
    api: RunningApi, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxies.proxy(name, api.url) as (url, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert {finding.name: finding.state for finding in findings(url).values()} == {
            "address": "ok",
            "streams": "ok",
            "uploads": "ok",
        }
        monkeypatch.delenv("SSL_CERT_FILE")
        found = findings(url)
        assert found.keys() == {"address"}
        assert "certificate verify failed" in found["address"].detail.lower()


def test_a_bare_nginx_limits_bodies_and_replaces_the_host(api: RunningApi) -> None:
    found = behind_nginx(api)
    assert found["uploads"].state == "failed"
    assert "answers 413" in found["uploads"].detail
    assert "nginx" in found["uploads"].detail
    assert found["address"].state == "warning"
    assert "sign-in is refused" in found["address"].detail


def test_buffers_are_named(api: RunningApi) -> None:
    found = behind_nginx(api, "client_max_body_size 0;", "proxy_ignore_headers X-Accel-Buffering;")
    assert (found["streams"].state, found["uploads"].state) == ("failed", "warning")
    assert "buffering of answers" in found["streams"].detail
    assert "buffering of requests" in found["uploads"].detail


def test_a_proxy_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    with serve(tmp_path / "service", api_key=KEY) as api:
        lines = ("proxy_set_header Host $http_host;", "proxy_set_header X-Forwarded-For $remote_addr;")
        found = behind_nginx(api, *lines)
        assert found["address"].state == "warning"
        assert "PREFTUNE_TRUSTED_PROXIES" in found["address"].detail


def test_a_path_that_the_service_does_not_know_of_is_named(api: RunningApi, tmp_path: Path) -> None:
    location = f"location /preftune/ {{ proxy_pass {api.url}/; proxy_set_header Host $http_host; }}"
    with nginx(tmp_path / "nginx", location) as url:
        found = findings(f"{url}/preftune")
        assert found["address"].state == "warning"
        assert "PREFTUNE_ROOT_PATH" in found["address"].detail
        lost = findings(f"{url}/elsewhere")
        assert lost["address"].state == "failed"
        assert "something else answers 40" in lost["address"].detail


def test_what_is_not_there_is_told(api: RunningApi) -> None:
    assert "refused" in findings("http://127.0.0.1:1")["address"].detail
    assert "is no address" in findings("tune.example.org")["address"].detail
    direct = findings(api.url)
    assert {finding.state for finding in direct.values()} == {"ok"}
