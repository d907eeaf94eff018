"""`GET /metrics`, read as Prometheus reads it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from api_server import RunningApi, serve
from backends import claim, point
from prometheus_client.parser import text_string_to_metric_families
from toy_jobs import wait_for

from core.services.attempts import lifecycle, recording
from core.services.attempts.lifecycle import AttemptOutcome

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "operate" / "grafana" / "preftune.json"
ALERTS = DASHBOARD.with_name("preftune-alerts.yml")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(api: RunningApi, **headers: str) -> Samples:
    response = api.http.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(response.text))
    assert all(family.documentation for family in families)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_jobs_waits_steps_and_lost_attempts(api: RunningApi) -> None:
    first, second = api.submit()["id"], api.submit()["id"]
    held = claim(api.backend)
    lifecycle.begin(held)
    recording.record_points(held, [point(1, tokens_per_second=200.0, num_tokens=50.0)])
    samples = scrape(api)
    assert value(samples, "preftune_jobs", status="running") == 1
    assert value(samples, "preftune_jobs", status="queued") == 1
    assert value(samples, "preftune_jobs", status="failed") == 0
    assert value(samples, "preftune_queue_wait_seconds_count") == 1
    assert value(samples, "preftune_queue_wait_seconds_bucket", le="+Inf") == 1
    assert (value(samples, "preftune_queue_wait_seconds_sum") or -1) >= 0
    assert (value(samples, "preftune_oldest_queued_seconds") or -1) > 0
    assert value(samples, "preftune_step_seconds", job_id=held.job_id, stage="dpo") == 0.25
    assert value(samples, "preftune_tokens_per_second", job_id=held.job_id, stage="dpo") == 200
    lifecycle.release(held, AttemptOutcome.LOST)
    samples = scrape(api)
    assert value(samples, "preftune_lease_losses_total") == 1
    assert value(samples, "preftune_attempts_total", outcome="lost") == 1
    assert value(samples, "preftune_step_seconds", job_id=held.job_id, stage="dpo") is None
    assert {first, second} >= {held.job_id}


def test_requests_are_counted_by_route_not_by_address(api: RunningApi) -> None:
    labels = {"method": "GET", "route": "/jobs/{job_id}", "status": "404"}
    before = value(scrape(api), "preftune_http_requests_total", **labels) or 0
    for number in range(3):
        api.http.get(f"/jobs/job_{number}")
    api.http.get("/nowhere/at/all")
    api.http.request("ODD", "/jobs")
    samples = scrape(api)
    assert value(samples, "preftune_http_requests_total", **labels) == before + 3
    assert value(samples, "preftune_http_request_seconds_count", method="GET", route="/jobs/{job_id}") is not None
    routes = {dict(labels).get("route") for name, labels in samples if name == "preftune_http_requests_total"}
    assert not any(route and ("job_1" in route or "nowhere" in route) for route in routes)
    methods = {dict(labels).get("method") for name, labels in samples if name == "preftune_http_requests_total"}
    assert "ODD" not in methods


def test_it_takes_the_key(tmp_path: Path) -> None:
    with serve(tmp_path, api_key="a-key") as locked:
        assert locked.http.get("/metrics").status_code == 401
        assert value(scrape(locked, Authorization="Bearer a-key"), "preftune_database_up") == 1


@pytest.mark.parametrize("path", ["/metrics?x=1"])
def test_it_is_strict(api: RunningApi, path: str) -> None:
    assert api.http.get(path).status_code == 422


def test_dashboard_file_shows_every_metric(api: RunningApi) -> None:
    """Names and labels that its queries use, and panels that lie beside each other, not on each other."""
    wait_for(lambda: "preftune_disk_free_bytes" in {name for name, _ in scrape(api)}, "the API's own presence")
    api.submit()
    held = claim(api.backend)
    recording.record_points(held, [point(1, tokens_per_second=200.0, num_tokens=50.0)])
    exposed: dict[str, set[str]] = {}
    for name, labels in scrape(api):
        exposed.setdefault(name, set()).update(label for label, _ in labels)
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = [name for query in queries for name in re.findall(r"preftune_\w+", query)]
    shown = {name for name in exposed if not name.endswith(("_sum", "_count", "_created"))}
    assert shown == set(used), "a metric without a panel"
    for query in queries:
        (name,) = re.findall(r"preftune_\w+", query)
        grouped = re.search(r"by \(([^)]*)\)", query)
        chosen = re.findall(r"(\w+)=\"", query)
        assert {*(grouped[1].split(", ") if grouped else ()), *chosen} <= exposed[name], query
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_metric_of_the_alerts_is_there(api: RunningApi) -> None:
    """Names and labels that the rules use; tests/deploy has promtool evaluate them."""
    exposed: dict[str, set[str]] = {"up": {"job"}}
    wait_for(lambda: "preftune_clock_offset_seconds" in {name for name, _ in scrape(api)}, "the API's own presence")
    for name, labels in scrape(api):
        exposed.setdefault(name, set()).update(label for label, _ in labels)
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    assert len(rules) >= 13
    for rule in rules:
        names = re.findall(r"\b(preftune_\w+|up)\b", rule["expr"].replace('"preftune"', ""))
        assert names, rule
        assert set(names) <= exposed.keys(), rule["alert"]
        known = set().union(*(exposed[name] for name in names))
        grouped = [part for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for part in group.split(", ")]
        assert {*grouped, *re.findall(r"(\w+)=~?\"", rule["expr"])} <= known, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "advice"}


def test_workers_clocks_and_disks(api: RunningApi) -> None:
    wait_for(lambda: "preftune_disk_free_bytes" in {name for name, _ in scrape(api)}, "the API's own presence")
    samples = scrape(api)
    assert value(samples, "preftune_workers", state="silent") == 0
    (offset,) = [found for (name, _), found in samples.items() if name == "preftune_clock_offset_seconds"]
    assert abs(offset) < 5
    reserves = {found for (name, _), found in samples.items() if name == "preftune_disk_reserve_bytes"}
    assert reserves == {api.settings.disk_reserve_bytes}
