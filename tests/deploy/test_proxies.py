"""The service behind real proxies, with the configurations of docs/operate/proxies.md, at the root and below a path."""

import hashlib
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from backends import claim, point
from browser import chromium, open_page
from deploy import proxies
from playwright.sync_api import Browser, expect

from core.services.attempts import lifecycle, recording
from preftune import Client

KEY = "pt_canary_0123456789abcdef_0123456789"
BIG_BYTES = 300 * 1024**2
FRONTS = [(name, root) for root in ("", "/preftune") for name in proxies.NAMES]


@dataclass(frozen=True, kw_only=True)
class Front:
    """A service and the proxy before it."""

    name: str
    api: RunningApi
    """Itself, past the proxy."""
    url: str
    root: str
    certificate: Path
    verify: ssl.SSLContext

    def client(self, address: str = "127.0.0.1", **options: Any) -> httpx.Client:
        """Return a client that comes from an address of loopback, which the proxy is to pass on."""
        transport = httpx.HTTPTransport(verify=self.verify, local_address=address)
        return httpx.Client(base_url=self.url, transport=transport, timeout=120, **options)

    def keyed(self, address: str = "127.0.0.1") -> httpx.Client:
        return self.client(address, headers={"Authorization": f"Bearer {KEY}"})


def open_front(folder: Path, name: str, root: str) -> Iterator[Front]:
    settings = {"api_key": KEY, "root_path": root, "trusted_proxies": "127.0.0.1"}
    with serve(folder, **settings) as api, proxies.proxy(name, api.url, root) as (url, certificate):
        api.http.headers["Authorization"] = f"Bearer {KEY}"
        verify = ssl.create_default_context(cafile=str(certificate))
        yield Front(name=name, api=api, url=url, root=root, certificate=certificate, verify=verify)


@pytest.fixture(scope="module", params=FRONTS, ids=[f"{name}{root}" for name, root in FRONTS])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    yield from open_front(Path(tmp_path_factory.mktemp("front")), *request.param)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def test_pages_lead_to_one_another(front: Front) -> None:
    with front.client(follow_redirects=True) as http:
        start = http.get("/")
        assert (start.status_code, str(start.url)) == (200, f"{front.url}/ui/")
        assert http.get("/ui/app.js").headers["content-type"].startswith("text/javascript")
        assert http.get("/docs").status_code == http.get("/docs.css").status_code == 200
        for document in ("/openapi.json", "/v1/openapi.json"):
            assert http.get(document).json()["servers"] == [{"url": front.root or "/"}]
        if front.root:
            assert str(http.get(front.url).url) == f"{front.url}/ui/"


def test_the_dashboard_signs_in_uploads_and_follows_a_job(front: Front, browser: Browser, tmp_path: Path) -> None:
    front.api.submit(name="Behind a proxy")
    held = claim(front.api.backend)
    lifecycle.begin(held)
    (tmp_path / "pairs.jsonl").write_bytes(pairs(5))
    with open_page(browser, front.url) as watched:
        page = watched.page
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Behind a proxy").click()
        watched.complaints.clear()  # 401 before the sign-in
        expect(page.get_by_role("heading", level=1)).to_contain_text("Behind a proxy")
        recording.record_points(held, [point(step) for step in (1, 2, 3)])
        expect(page.get_by_text("loss").first).to_be_visible()
        links = page.locator("a[href*='/jobs/']:not([href^='#'])")
        addresses = links.evaluate_all("links => links.map(link => link.getAttribute('href'))")
        assert addresses
        assert all(address.startswith(f"{front.root}/jobs/") for address in addresses), addresses
        page.goto(f"{front.url}/ui/#/datasets")
        page.locator("#file").set_input_files(tmp_path / "pairs.jsonl")
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("5 rows read: 5 usable")).to_be_visible()
        assert "preftune_session" in page.context.cookies()[0]["name"]
        watched.check()
    front.api.http.post(f"/jobs/{held.job_id}/cancel")


def test_a_cookie_over_https_is_for_this_host_alone(front: Front) -> None:
    origin = front.url.removesuffix(front.root)
    with front.client() as http:
        signed_in = http.post("/ui/session", json={"api_key": KEY}, headers={"Origin": origin})
        assert signed_in.status_code == 204, signed_in.text
        cookie = signed_in.headers["set-cookie"]
        assert cookie.startswith("__Host-preftune_session")
        assert "Secure" in cookie
        assert http.get("/jobs").status_code == 200
        foreign = http.post("/ui/session", json={"api_key": KEY}, headers={"Origin": "https://elsewhere.example"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign-origin")
        assert http.delete("/ui/session", headers={"Origin": origin}).status_code == 204
        assert http.get("/jobs").status_code == 401


def test_uploads_of_every_form_arrive_and_location_leads_to_them(front: Front) -> None:
    with front.keyed() as http:
        for content in ({"files": {"file": ("pairs.jsonl", pairs(3))}}, {"content": iter([pairs(2), pairs(2)])}):
            made = http.post("/datasets", **content)
            assert made.status_code == 201, made.text
            assert made.headers["location"] == f"{front.root}/datasets/{made.json()['id']}"
            assert http.get(f"/datasets/{made.json()['id']}/content").status_code == 200


def test_large_bodies_flow_through(front: Front) -> None:
    with front.keyed() as http:
        opened = http.post("/uploads", json={"num_bytes": BIG_BYTES, "name": "big.jsonl"}).json()
        size = opened["part_bytes"]
        part = b"x" * size
        digest = hashlib.sha256(part).hexdigest()
        for number in range(1, 3):
            sent = http.put(f"/uploads/{opened['id']}/parts/{number}", params={"sha256": digest}, content=part)
            assert sent.status_code in (200, 201), sent.text
        assert len(http.get(f"/uploads/{opened['id']}").json()["parts"]) == 2
        whole = http.post("/datasets", content=_rows(BIG_BYTES))
        assert whole.status_code in (201, 413, 422), whole.text
        assert whole.headers["content-type"] in ("application/json", "application/problem+json")


def _rows(num_bytes: int) -> Iterator[bytes]:
    row = b'{"prompt": "%s", "chosen": "a", "rejected": "b"}\n' % (b"long " * 200_000)
    for _ in range(num_bytes // len(row)):
        yield row


def test_ranges_tags_and_archives(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = front.api.finish_job()["job_id"]
    with front.keyed() as http:
        file = http.get(f"/jobs/{job_id}/artifact").json()["files"][0]
        assert file["url"].startswith(f"{front.root}/jobs/")
        url = front.url.removesuffix(front.root) + file["url"]
        whole = http.get(url)
        part = http.get(url, headers={"Range": "bytes=1-"})
        assert (part.status_code, part.content) == (206, whole.content[1:])
        assert http.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
        assert http.get(f"/jobs/{job_id}/artifact/archive").headers["content-type"] == "application/x-tar"
    monkeypatch.setenv("SSL_CERT_FILE", str(front.certificate))
    with Client(front.url, api_key=KEY) as client:
        client.jobs.download(job_id, tmp_path / "policy")
    assert (tmp_path / "policy" / file["path"]).stat().st_size == file["num_bytes"]


def test_events_come_as_they_happen(front: Front) -> None:
    job_id = front.api.submit()["id"]
    held = claim(front.api.backend)
    lifecycle.begin(held)
    with front.keyed() as http, http.stream("GET", f"/jobs/{job_id}/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        for step in range(1, 4):
            sent = time.monotonic()
            recording.record_points(held, [point(step)])
            assert next(line for line in lines if f'"step":{step}' in line.replace(" ", ""))
            assert time.monotonic() - sent < 3
    front.api.http.post(f"/jobs/{job_id}/cancel")


def test_the_clients_own_address_counts_and_not_its_word(front: Front) -> None:
    with front.keyed("127.0.0.5") as http:
        liar = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": "elsewhere.example", "X-Forwarded-Proto": "http"}
        made = http.post("/datasets", content=pairs(4), headers=liar).json()
        events = http.get("/audit", params={"object_id": made["id"]}).json()["data"]
        assert {event["address"] for event in events} == {"127.0.0.5"}
        missing = http.get("/jobs/none", headers=liar)
        assert missing.json()["instance"] == f"{front.root}/jobs/none"


def test_wrong_sign_ins_are_throttled_by_the_clients_address(front: Front) -> None:
    headers = {"Origin": front.url.removesuffix(front.root)}

    def statuses(address: str, count: int) -> list[int]:
        with front.client(address) as http:
            body = {"api_key": "wrong"}
            return [http.post("/ui/session", json=body, headers=headers).status_code for _ in range(count)]

    assert 429 in statuses("127.0.0.6", 14)
    assert statuses("127.0.0.7", 1) == [401]


@pytest.mark.timeout(400)
def test_a_wait_of_a_minute_and_a_slow_upload_are_not_cut_off(tmp_path: Path) -> None:
    """Longer than the defaults of HAProxy (50 s), nginx (60 s) and Traefik (60 s); all four at once."""

    items = {"items": [{"prompt": "a", "response": "b"}]}
    with ExitStack() as stack:
        fronts = [stack.enter_context(contextmanager(open_front)(tmp_path / name, name, "")) for name in proxies.NAMES]
        pool = stack.enter_context(ThreadPoolExecutor(2 * len(fronts)))
        waits, uploads = [], []
        for front in fronts:
            http = stack.enter_context(front.keyed())
            job_id = front.api.finish_job()["job_id"]
            waits.append(pool.submit(http.post, f"/jobs/{job_id}/scores?wait=60", json=items))
            uploads.append(pool.submit(http.post, "/datasets", content=_slowly(70)))
        assert [found.result().status_code for found in waits] == [202] * len(fronts)
        assert [found.result().status_code for found in uploads] == [201] * len(fronts)


def _slowly(seconds: int) -> Iterator[bytes]:
    """Yield rows that flow, within the service's minimal rate, for longer than a proxy's minute."""
    for _ in range(seconds):
        yield pairs(1000)
        time.sleep(1)
