"""Keys by API: shown once, made and ended within one's reach; and users that a trusted proxy names."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from browser import open_page
from nginx_proxy import NGINX, nginx
from playwright.sync_api import Browser, expect
from sqlalchemy import text

from core.domain.access import Scope
from core.services.access import api_keys, projects
from core.settings import SettingsError
from preftune import ApiError, Client

KEY = "pt_canary_0123456789abcdef0123456789abcdef"
ROLES = "ml-team=default:write, ml-leads=default:admin, ops=default:operator, eve@example.org=gone:read, *=demo:read"
PROXY = """
location / {{
    proxy_pass {url};
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header X-Forwarded-Host tune.example.org;
    proxy_set_header X-Forwarded-Email ana@example.org;
    proxy_set_header X-Forwarded-Groups ml-team;
}}
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("keyed")), api_key=KEY) as api:
        projects.create(api.backend, "other")
        yield api


def headers(api: RunningApi, scope: Scope, project_id: str = "default") -> dict[str, str]:
    return {"Authorization": f"Bearer {api_keys.create(api.backend, project_id, 'x', scope).token}"}


def test_a_key_is_shown_once_and_works_until_it_is_ended(keyed: RunningApi) -> None:
    admin = headers(keyed, Scope.ADMIN)
    body = {"name": "ci", "scope": "read", "expires_in_seconds": 3600}
    made = keyed.http.post("/keys", json=body, headers=admin | {"Idempotency-Key": "one"})
    key = made.json()
    assert (made.status_code, key["scope"], key["project_id"], key["is_live"]) == (201, "read", "default", True)
    assert made.headers["location"] == f"/keys/{key['id']}"
    own = {"Authorization": f"Bearer {key['token']}"}
    assert keyed.http.get("/jobs", headers=own).status_code == 200
    assert keyed.http.get("/keys", headers=own).status_code == 403
    again = keyed.http.post("/keys", json=body, headers=admin | {"Idempotency-Key": "one"})
    assert (again.json()["id"], again.json()["token"]) == (key["id"], None), "the secret is not kept for it"
    rows = keyed.backend.database.read(
        lambda session: session.execute(text("SELECT response_body FROM idempotency_keys")).scalars().all()
    )
    assert rows
    assert not any(key["token"].rpartition("_")[2] in str(row) for row in rows)
    listed = keyed.http.get("/keys", headers=admin).json()["data"]
    assert key["id"] in {item["id"] for item in listed}
    assert all("token" not in item for item in listed)
    assert keyed.http.delete(f"/keys/{key['id']}", headers=admin).status_code == 204
    assert keyed.http.get(f"/keys/{key['id']}", headers=admin).json()["revoked_at"] is not None


def test_both_keys_work_while_one_is_replaced(keyed: RunningApi) -> None:
    with Client(keyed.url, api_key=headers(keyed, Scope.ADMIN)["Authorization"][7:]) as client:
        old = client.keys.create("bot")
        new = client.keys.rotate(old["id"], grace_seconds=60)
        for token in (old["token"], new["token"]):
            assert keyed.http.get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert (new["name"], new["scope"]) == ("bot", "write")
        client.keys.revoke(new["id"])
        assert new["id"] in {key["id"] for key in client.keys.list()}
        with pytest.raises(ApiError, match="revoked or expired"):
            client.keys.rotate(new["id"])


def test_an_admin_makes_no_operator_and_no_key_of_another_project(keyed: RunningApi) -> None:
    admin, operator = headers(keyed, Scope.ADMIN), headers(keyed, Scope.OPERATOR)
    for body in ({"name": "x", "scope": "operator"}, {"name": "x", "project_id": "other"}):
        refused = keyed.http.post("/keys", json=body, headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (403, "key-out-of-reach")
        assert keyed.http.post("/keys", json=body, headers=operator).status_code == 201
    assert keyed.http.post("/keys", json={"name": "x", "project_id": "no"}, headers=operator).status_code == 404
    theirs = api_keys.create(keyed.backend, "other", "theirs", Scope.READ).key.id
    above = api_keys.create(keyed.backend, "default", "above", Scope.OPERATOR).key.id
    for key_id in (theirs, above):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
            answer = keyed.http.request(method, f"/keys/{key_id}{path}", headers=admin, json={} if path else None)
            assert (answer.status_code, answer.json()["code"]) == (404, "key-not-found")
    assert keyed.http.get("/keys?project_id=other", headers=admin).json()["data"] == []
    seen = keyed.http.get("/keys?limit=100", headers=operator).json()["data"]
    assert {theirs, above} <= {key["id"] for key in seen}


def test_keys_on_the_dashboard(browser: Browser, keyed: RunningApi) -> None:
    with open_page(browser, keyed.url) as watched:
        page = watched.page
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Keys").click()
        page.get_by_label("Name").fill("from the browser")
        page.get_by_label("May").select_option("read")
        page.get_by_role("button", name="Make the key").click()
        token = page.locator("code[data-focus=secret]")
        expect(token).to_have_text(re.compile(r"^pt_[0-9a-z]{26}_[0-9a-f]{64}$"))
        shown = token.inner_text()
        assert httpx.get(f"{keyed.url}/jobs", headers={"Authorization": f"Bearer {shown}"}).status_code == 200
        line = page.get_by_role("row", name="from the browser").first
        expect(line).to_contain_text("works")
        line.get_by_role("button", name="End").click()
        page.get_by_role("button", name="End the key").click()
        expect(page.get_by_role("row", name="from the browser").first).to_contain_text("revoked")
        page.reload()
        expect(page.get_by_role("row", name="from the browser").first).to_be_visible()
        assert shown not in page.content()
        watched.complaints = [text for text in watched.complaints if "401" not in text]
        watched.check()


@contextmanager
def identified(folder: Path, **settings: Any) -> Iterator[RunningApi]:
    values = {
        "trusted_proxies": "127.0.0.1",
        "identity_header": "X-Forwarded-Email",
        "identity_roles": ROLES,
    } | settings
    with serve(folder, **values) as api:
        projects.create(api.backend, "demo")
        yield api


def user(email: str, groups: str = "", **more: str) -> dict[str, str]:
    return {"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Email": email, "X-Forwarded-Groups": groups} | more


def test_a_named_user_may_what_its_first_role_says(tmp_path: Path) -> None:
    with identified(tmp_path) as api:
        own = {"Origin": api.url}
        writer = user("ana@example.org", "guests,ML-Team")
        made = api.http.post("/datasets", content=pairs(), headers=writer | own)
        assert made.status_code == 201, made.text
        assert api.http.get("/audit", headers=writer).json()["code"] == "scope-missing"
        lead = user("bo@example.org", "ml-leads")
        (event,) = api.http.get("/audit", params={"action": "dataset.create"}, headers=lead).json()["data"]
        assert (event["actor"], event["key_id"], event["address"]) == ("ana@example.org", None, "203.0.113.5")
        assert api.http.get("/metrics", headers=lead).status_code == 403
        assert api.http.get("/metrics", headers=user("cy@example.org", "ops")).status_code == 200
        anybody = user("dan@example.org", "")
        assert api.http.get("/datasets", headers=anybody).json()["data"] == [], "another project"
        assert api.http.post("/datasets", content=pairs(), headers=anybody | own).status_code == 403
        nobody = api.http.get("/jobs", headers=user("eve@example.org"))
        assert (nobody.status_code, nobody.json()["code"]) == (403, "identity-refused"), "its project is not there"
        session = api.http.get("/ui/session", headers=writer).json()
        assert session == {"needs_key": True, "is_signed_in": True, "scope": "write"}


def test_a_page_of_another_site_uses_no_users_name(tmp_path: Path) -> None:
    with identified(tmp_path) as api:
        writer = user("ana@example.org", "ml-team")
        for origin in ({}, {"Origin": "https://evil.example"}):
            refused = api.http.post("/datasets", content=pairs(), headers=writer | origin)
            assert (refused.status_code, refused.json()["code"]) == (403, "foreign-origin")


def test_the_header_is_refused_from_any_address_that_is_not_trusted(tmp_path: Path) -> None:
    with identified(tmp_path, trusted_proxies="192.0.2.1", api_key=KEY) as api:
        for path in ("/jobs", "/ui/session", "/docs"):
            refused = api.http.get(path, headers=user("ana@example.org", "ops"))
            assert (refused.status_code, refused.json()["code"]) == (403, "identity-refused"), path
        assert api.http.get("/jobs", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_off_unless_set_and_no_name_is_no_user(tmp_path: Path) -> None:
    with serve(tmp_path / "off", trusted_proxies="127.0.0.1", api_key=KEY) as api:
        assert api.http.get("/jobs", headers=user("ana@example.org", "ops")).status_code == 401
    with identified(tmp_path / "on") as api:
        assert api.http.get("/jobs").json()["code"] == "api-key-missing", "nor is it served without keys"
        for name in ("", "x" * 300):
            assert api.http.get("/jobs", headers=user(name, "ops")).status_code == 401
        twice = [*user("ana@example.org", "ops").items(), ("X-Forwarded-Email", "bo@example.org")]
        assert api.http.get("/jobs", headers=twice).status_code == 401
        token = api_keys.create(api.backend, "demo", "k", Scope.READ).token
        both = user("ana@example.org", "ops") | {"Authorization": f"Bearer {token}"}
        assert api.http.get("/keys", headers=both).status_code == 403, "a key that is sent is what counts"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"trusted_proxies": ""}, "PREFTUNE_TRUSTED_PROXIES"),
        ({"identity_roles": ""}, "PREFTUNE_IDENTITY_ROLES"),
        ({"identity_roles": "ml-team=default"}, "ml-team=default"),
        ({"identity_roles": "ml-team=default:root"}, "root"),
        ({"identity_header": "X Forwarded"}, "PREFTUNE_IDENTITY_HEADER"),
    ],
)
def test_settings_that_cannot_be_meant_stop_the_start(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named), identified(tmp_path, **settings):
        pass


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_behind_a_real_proxy_a_client_names_nobody(tmp_path: Path) -> None:
    with identified(tmp_path / "api") as api, nginx(tmp_path / "nginx", PROXY.format(url=api.url)) as proxy:
        forged = {"X-Forwarded-Email": "root@example.org", "X-Forwarded-Groups": "ops", "X-Forwarded-For": "1.2.3.4"}
        session = httpx.get(f"{proxy}/ui/session", headers=forged).json()
        assert (session["is_signed_in"], session["scope"]) == (True, "write"), "what the proxy says, not the client"
        assert httpx.get(f"{proxy}/metrics", headers=forged).status_code == 403
        own = {"Origin": "https://tune.example.org"}
        assert httpx.post(f"{proxy}/datasets", content=pairs(), headers=forged | own).status_code == 201
        operator = user("cy@example.org", "ops")
        (event,) = api.http.get("/audit", params={"action": "dataset.create"}, headers=operator).json()["data"]
        assert (event["actor"], event["address"]) == ("ana@example.org", "127.0.0.1")
