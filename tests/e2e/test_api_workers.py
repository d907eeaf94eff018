"""`GET /workers`, `GET /storage` and the dashboard's page of both: to operators all, to admins what is theirs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import RunningApi, pairs, serve
from backends import claim
from browser import accessibility_faults, open_page
from playwright.sync_api import Browser, expect

from core.domain.access import Scope
from core.services.access import api_keys, projects
from core.services.attempts import lifecycle
from core.services.estimates.workers import WorkerFacts
from core.services.operations.presence import Description, Presence

KEY = "pt_canary_0123456789abcdef"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("house")), api_key=KEY) as api:
        api.http.headers["Authorization"] = f"Bearer {KEY}"
        projects.create(api.backend, "vision")
        api.submit()
        facts = WorkerFacts(name="worker-1", host="host-1", device_class="CPU", trains=True, memory_bytes=None)
        Presence(api.backend, facts, Description(kind="worker", num_devices=1, lanes="all")).beat()
        lifecycle.begin(claim(api.backend, "worker-1"))
        yield api


def ask(house: RunningApi, path: str, project: str, scope: Scope) -> dict[str, object]:
    token = api_keys.create(house.backend, project, "key", scope).token
    answer = house.http.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_operators_are_told_everything(house: RunningApi) -> None:
    found = house.http.get("/workers").json()
    states = {one["id"]: one["state"] for one in found["data"]}
    assert states.pop("worker-1") == "working"
    assert list(states.values()) == ["up"], "the API itself"
    worker = next(one for one in found["data"] if one["id"] == "worker-1")
    assert worker["job"]["project_id"] == "default"
    assert worker["host"]
    assert worker["disks"][0]["what"] == "data"
    assert found["queue"] == [
        {"project_id": "default", "num_queued": 0, "num_running": 1, "oldest_queued_seconds": 0.0}
    ]
    storage = house.http.get("/storage", params={"limit": 1}).json()
    assert [one["id"] for one in storage["data"]] == ["default"]
    assert storage["num_lost_objects"] == 0
    rest = house.http.get("/storage", params={"cursor": storage["next_cursor"]}).json()
    assert [one["id"] for one in rest["data"]] == ["vision"]


def test_an_admin_is_told_of_its_project(house: RunningApi) -> None:
    found = ask(house, "/workers", "vision", Scope.ADMIN)
    assert [(one["job"], one["host"], one["disks"]) for one in found["data"]] == [(None, None, [])] * 2  # type: ignore[attr-defined]
    assert found["queue"] == []
    storage = ask(house, "/storage", "vision", Scope.ADMIN)
    assert [one["id"] for one in storage["data"]] == ["vision"]  # type: ignore[attr-defined]
    assert storage["num_lost_objects"] is None


@pytest.mark.parametrize("path", ["/workers", "/storage"])
def test_writers_are_not(house: RunningApi, path: str) -> None:
    token = api_keys.create(house.backend, "default", "writer", Scope.WRITE).token
    assert house.http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 403


def test_the_page_shows_who_works_on_what_and_who_stores_what(browser: Browser, house: RunningApi) -> None:
    house.http.post("/datasets", content=pairs(3))
    with open_page(browser, house.url) as watched:
        page = watched.page
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Workers").click()
        watched.complaints.clear()  # 401 before the sign-in
        workers = page.locator("section", has=page.get_by_role("heading", name="Workers and API processes"))
        row = workers.get_by_role("row").filter(has_text="worker-1")
        expect(row).to_contain_text("working")
        expect(row).to_contain_text("CPU")
        storage = page.locator("section", has=page.get_by_role("heading", name="Storage"))
        expect(storage.get_by_role("row").filter(has_text="default")).to_contain_text("no bound")
        expect(page.locator("section", has=page.get_by_role("heading", name="Queue"))).to_contain_text("default")
        assert accessibility_faults(page) == []
        row.get_by_role("link").click()
        expect(page).to_have_url(f"{house.url}/ui/#/jobs/{house.http.get('/jobs').json()['data'][0]['id']}")
        watched.check()
