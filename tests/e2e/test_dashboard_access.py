"""The dashboard's files and its sign-in, over HTTP: what is served to whom, and what another site cannot do."""

import base64
import hashlib
import re
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, serve

KEY = "pt_canary_0123456789abcdef"
COOKIE = "preftune_session"
SECURE_COOKIE = "__Host-preftune_session"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("keyed")), api_key=KEY) as running:
        yield running


def sign_in(keyed: RunningApi, key: str = KEY, **headers: str) -> httpx.Response:
    with httpx.Client(base_url=keyed.url) as http:
        return http.post("/ui/session", json={"api_key": key}, headers={"Origin": keyed.url} | headers)


def test_the_start_page_is_the_dashboard(api: RunningApi) -> None:
    for path in ("/", "/ui"):
        response = api.http.get(path)
        assert (response.status_code, response.headers["location"]) == (307, "/ui/")
    page = api.http.get("/ui/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    script = api.http.get("/ui/app.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    again = api.http.get("/ui/app.js", headers={"If-None-Match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/ui/nope.js", "/ui/vendor/README.md", "/ui/vendor/", "/ui/..%2fdocs.css", "/ui/%2e%2e/app.py", "/ui/a%00b"],
)
def test_only_the_dashboards_own_files_are_served(api: RunningApi, path: str) -> None:
    response = api.http.get(path)
    assert (response.status_code, response.json()["status"]) == (404, 404)


def test_without_a_key_nobody_need_sign_in(api: RunningApi) -> None:
    assert api.http.get("/ui/session").json() == {"needs_key": False, "is_signed_in": True, "scope": "operator"}
    assert api.http.post("/ui/session", json={"api_key": "x"}, headers={"Origin": api.url}).status_code == 204
    assert api.http.get("/ui/", headers={"Host": "preftune.example"}).status_code == 403


def test_the_key_gets_a_cookie_that_no_script_and_no_other_site_can_use(keyed: RunningApi) -> None:
    response = sign_in(keyed)
    assert (response.status_code, response.content) == (204, b"")
    morsel = SimpleCookie(response.headers["set-cookie"])[COOKIE]
    assert (morsel["httponly"], morsel["samesite"].lower(), morsel["path"]) == (True, "strict", "/")
    assert 0 < int(morsel["max-age"]) <= 24 * 3600
    assert KEY not in response.headers["set-cookie"]
    assert not morsel["secure"]
    https = sign_in(keyed, Origin=keyed.url.replace("http:", "https:"))
    morsel = SimpleCookie(https.headers["set-cookie"])[SECURE_COOKIE]
    assert (morsel["secure"], morsel["path"], morsel["domain"]) == (True, "/", "")


def test_a_wrong_key_gets_none(keyed: RunningApi) -> None:
    response = sign_in(keyed, KEY + "x")
    assert (response.status_code, response.json()["code"]) == (401, "api-key-invalid")
    assert "set-cookie" not in response.headers
    assert KEY not in response.text


def test_a_signed_in_browser_may_read_and_from_its_own_pages_write(keyed: RunningApi) -> None:
    cookies = dict(sign_in(keyed).cookies)
    with httpx.Client(base_url=keyed.url, cookies=cookies) as http:
        assert http.get("/ui/session").json() == {"needs_key": True, "is_signed_in": True, "scope": "operator"}
        assert http.get("/jobs").status_code == 200
        own = {"Origin": keyed.url}
        assert http.post("/jobs", json={}, headers=own).json()["code"] == "invalid-request"
        foreign: list[dict[str, str]] = [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
        for headers in foreign:
            for method, path in (("POST", "/jobs"), ("DELETE", "/jobs/job_1"), ("PATCH", "/jobs/job_1")):
                refused = http.request(method, path, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (403, "foreign-origin")
            told = http.post("/ui/session", json={"api_key": KEY}, headers=headers)
            assert told.status_code == 403
            assert all(
                name in told.json()["detail"] for name in (headers.get("Origin", "none"), http.base_url.netloc.decode())
            )
            assert http.delete("/ui/session", headers=headers).status_code == 403
        # A wrong key beside a good cookie is still a wrong key.
        assert http.get("/jobs", headers={"Authorization": "Bearer x"}).status_code == 401
        gone = http.delete("/ui/session", headers=own)
        assert SimpleCookie(gone.headers["set-cookie"])[COOKIE]["max-age"] == "0"


def test_a_made_up_cookie_opens_nothing(keyed: RunningApi) -> None:
    for token in ("", "x", f"9999999999.x.{'0' * 64}", KEY):
        response = httpx.get(f"{keyed.url}/jobs", headers={"Cookie": f"{COOKIE}={token}"})
        assert (response.status_code, response.json()["code"]) == (401, "api-key-missing")
    assert httpx.get(f"{keyed.url}/ui/session").json() == {"needs_key": True, "is_signed_in": False, "scope": None}


def test_the_start_page_paints_by_itself_and_names_files_that_stay(api: RunningApi) -> None:
    page = api.http.get("/ui/")
    assert "stylesheet" not in page.text
    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'self' 'sha256-{digest}';" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-cache"
    named = re.findall(r'\s(?:src|href)="([^"#.][^"]*)"', page.text)
    assert "app.js" in {name.partition("/")[2] for name in named}
    for name in named:
        file = api.http.get(f"/ui/{name}")
        assert (file.status_code, file.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    other = api.http.get("/ui/v-0123456789abcdef/app.js")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache"), "a page of another version goes on"


def test_a_pages_address_without_the_number_sign_leads_to_it(api: RunningApi) -> None:
    headers = {"Accept": "text/html,*/*"}
    found = api.http.get("/ui/jobs/job_1", headers=headers)
    assert (found.status_code, found.headers["location"]) == (307, "/ui/#/jobs/job_1")
    assert api.http.get("/ui/jobs").status_code == 404
    assert api.http.get("/ui//evil.example", headers=headers).status_code == 404
