"""A service below a path of a shared host name: its answers lead back to it, whoever takes the path off."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, pairs, serve

from api.app import create_app
from core.settings import Settings, SettingsError, load_settings
from preftune import Client

KEY = "pt_canary_0123456789abcdef"
ROOT = "/tools/preftune"


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("below")), api_key=KEY, root_path=ROOT) as running:
        running.http.headers["Authorization"] = f"Bearer {KEY}"
        yield running


@pytest.mark.parametrize("prefix", ["", ROOT])
def test_answers_lead_below_the_path_whether_it_is_passed_on_or_not(below: RunningApi, prefix: str) -> None:
    for path in ("", "/", "/ui"):
        if prefix + path:
            start = below.http.get(prefix + path)
            assert (start.status_code, start.headers["location"]) == (307, f"{ROOT}/ui/")
    made = below.http.post(f"{prefix}/datasets", files={"file": ("pairs.jsonl", pairs())})
    assert made.headers["location"] == f"{ROOT}/datasets/{made.json()['id']}"
    assert below.http.get(made.headers["location"]).status_code == 200
    missing = below.http.get(f"{prefix}/jobs/none").json()
    assert missing["type"].startswith(f"{ROOT}/docs#")
    assert missing["instance"] == f"{ROOT}/jobs/none"
    file = below.http.get(f"{prefix}/v1/files/{made.json()['id']}").json()
    assert below.http.get(file["report_url"]).status_code == 200
    for document in ("openapi.json", "v1/openapi.json"):
        assert below.http.get(f"{prefix}/{document}").json()["servers"] == [{"url": ROOT}]


def test_files_are_where_their_addresses_say_for_client_and_browser(below: RunningApi, tmp_path: Path) -> None:
    ids = below.finish_job()
    artifact = below.http.get(f"/jobs/{ids['job_id']}/artifact").json()
    checkpoints = below.http.get(f"/jobs/{ids['job_id']}/checkpoints").json()["data"]
    for url in (artifact["archive_url"], artifact["files"][0]["url"], checkpoints[0]["archive_url"]):
        assert url.startswith(f"{ROOT}/jobs/")
        assert below.http.get(url).status_code == 200
    with Client(f"{below.url}{ROOT}/", api_key=KEY) as client:
        client.jobs.download(ids["job_id"], tmp_path / "policy")
    assert {path.name for path in (tmp_path / "policy").iterdir()} == {file["path"] for file in artifact["files"]}


def test_pages_name_what_they_need_relatively(below: RunningApi) -> None:
    for page in ("/ui/", "/docs"):
        text = below.http.get(ROOT + page).text
        assert 'href="/' not in text
        assert 'src="/' not in text
        for part in ("docs.css", "docs.js", "ui/base.css", "ui/dom.js", "ui/icon.svg"):
            assert below.http.get(f"{ROOT}/{part}").status_code == 200


def test_two_services_on_one_host_do_not_share_a_cookie(below: RunningApi) -> None:
    with httpx.Client(base_url=below.url) as http:
        signed_in = http.post(f"{ROOT}/ui/session", json={"api_key": KEY}, headers={"Origin": below.url})
        assert signed_in.headers["set-cookie"].startswith("preftune_session_tools_preftune=")
        assert http.get(f"{ROOT}/jobs").status_code == 200
        secure = below.url.replace("http:", "https:")
        signed_in = http.post(f"{ROOT}/ui/session", json={"api_key": KEY}, headers={"Origin": secure})
        assert signed_in.headers["set-cookie"].startswith("__Host-preftune_session_tools_preftune=")
        http.delete(f"{ROOT}/ui/session", headers={"Origin": below.url})
        assert http.get(f"{ROOT}/jobs").status_code == 401


def test_only_whole_parts_are_taken_off(below: RunningApi) -> None:
    assert below.http.get(f"{ROOT}x/jobs").status_code == 404
    assert below.http.get(f"{ROOT}{ROOT}/jobs").status_code == 404
    assert below.http.get(f"{ROOT}/health/live").status_code == 200


@pytest.mark.parametrize("root", ["preftune", "/preftune/", "/a/../b", "//host", "/a b"])
def test_what_is_no_path_stops_the_start(root: str) -> None:
    with pytest.raises(SettingsError, match="PREFTUNE_ROOT_PATH"):
        load_settings(root_path=root)


@pytest.mark.parametrize("root", ["/jobs/x", "/v1", "/ui"])
def test_a_path_of_the_services_own_stops_the_start(tmp_path: Path, root: str) -> None:
    with pytest.raises(SettingsError, match="is a path of the service itself"):
        create_app(Settings(data_dir=tmp_path, root_path=root))
