"""Pictures of the dashboard for docs/screenshots: `make screenshots [BASE_MODEL=folder]`.

A service of its own, the example data, a real sweep, two real jobs that differ in beta and one that is caught on its
way, and every page in light and dark, on a desktop and a telephone.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from api_server import RunningApi, serve
from browser import Theme, chromium, open_page
from playwright.sync_api import Browser, Page
from tiny_models import make_tiny_model
from toy_jobs import InProcessWorker

from worker.app import TRAINER_COMMAND

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "screenshots"
MAX_SECONDS = 1800
PHONE_WIDTH = 390
PHONE_HEIGHT = 1600
OVERVIEW_HEIGHT = 1180  # of the picture in the README
"""Of the picture; the page goes on."""
NUM_ROWS = 120
BROKEN = b'{"prompt": "How do I keep basil fresh?", "chosen": "In water, like flowers."}\n{"prompt": "Why salt?"\n'
SETTINGS: dict[str, Any] = {
    "max_length": 256,
    "precision": "fp32",
    "validation_fraction": 0.1,
    "evaluate_every_steps": 6,
    "sft": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
    "dpo": {"epochs": 3, "batch_size": 8, "learning_rate": 3e-4},
    "sample_prompts": ["What works if I want to descale a kettle?", "How do I keep moths away?"],
}


@contextmanager
def service(base_model: Path | None) -> Iterator[tuple[RunningApi, str]]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = base_model.name if base_model else "tiny-llama"
        if base_model:
            shutil.copytree(base_model, folder / "models" / model, copy_function=shutil.copy)
            (folder / "models" / model).chmod(0o755)
        else:
            make_tiny_model(folder / "models" / model)
        with serve(folder, sweep_seconds=1) as api:
            shutil.rmtree(folder / "models" / "tiny")  # the tests' own, of twelve weights
            yield api, model


def upload(api: RunningApi, content: bytes, name: str) -> str:
    headers = {"Prefer": "respond-async"}
    dataset_id: str = api.http.post("/datasets", content=content, params={"name": name}, headers=headers).json()["id"]
    wait(lambda: api.http.get(f"/datasets/{dataset_id}").json()["status"] != "processing", "the check")
    return dataset_id


def wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + MAX_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.5)


def submit(api: RunningApi, model: str, dataset_id: str, **fields: Any) -> str:
    body = SETTINGS | {"base_model": model, "dataset_id": dataset_id} | fields
    response = api.http.post("/jobs", json=body)
    assert response.status_code == 201, response.text
    job_id: str = response.json()["id"]
    return job_id


def job(api: RunningApi, job_id: str) -> Any:
    return api.http.get(f"/jobs/{job_id}").json()


def shoot(
    browser: Browser, api: RunningApi, where: str, name: str, themes: tuple[Theme, ...] = ("light", "dark")
) -> None:
    for theme in themes:
        with open_page(browser, api.url, theme=theme) as watched:
            picture(watched.page, where, f"{name}-{theme}")
            watched.check()


def picture(page: Page, where: str, name: str, max_height: int = 4000) -> None:
    page.goto(f"/ui/#/{where}")
    page.locator("h1").wait_for()
    page.locator(".spinner").wait_for(state="detached")
    page.wait_for_timeout(3000)  # for what comes after the first answer: samples, files, resolved numbers
    size = page.viewport_size or {"width": 0, "height": 0}
    height = max(size["height"], min(max_height, page.evaluate("document.documentElement.scrollHeight")))
    page.set_viewport_size({"width": size["width"], "height": height})
    page.wait_for_timeout(300)
    page.screenshot(path=TARGET / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", type=Path, help="a model's folder; default: a tiny one of random weights")
    base_model = parser.parse_args().base_model
    TARGET.mkdir(parents=True, exist_ok=True)
    rows = b"".join((ROOT / "examples" / "house-style.jsonl").read_bytes().splitlines(keepends=True)[:NUM_ROWS])
    with service(base_model) as (api, model), chromium() as browser:
        shoot(browser, api, "jobs", "empty", ("light",))
        dataset_id = upload(api, rows, "House style")
        broken_id = upload(api, rows + BROKEN, "House style, draft")
        first = submit(api, model, dataset_id, name="House style, beta 0.1", beta=0.1)
        with InProcessWorker(api.backend, TRAINER_COMMAND):
            second = submit(api, model, dataset_id, name="House style, beta 0.5", beta=0.5)
            wait(lambda: job(api, second)["status"] == "succeeded", "the jobs")
            sweep_id = sweep(api, model, dataset_id)
            long = SETTINGS["dpo"] | {"epochs": 100}
            third = submit(api, model, dataset_id, name="House style, robust", variant="robust", dpo=long)
            submit(api, model, dataset_id, name="House style, IPO", variant="ipo")
            wait(lambda: job(api, third)["stage"] == "dpo" and job(api, third)["progress"]["step"] > 15, "curves")
            shoot(browser, api, f"jobs/{third}", "job-running")
            shoot(browser, api, "jobs", "jobs")
            with open_page(browser, api.url, theme="light") as watched:
                picture(watched.page, f"jobs/{third}", "overview", OVERVIEW_HEIGHT)
            assert job(api, third)["status"] == "running"
            api.http.post(f"/jobs/{third}/cancel")
        finished(browser, api, [first, second], {"sweep": sweep_id, "dataset": dataset_id, "broken": broken_id})


def sweep(api: RunningApi, model: str, dataset_id: str) -> str:
    base = SETTINGS | {"base_model": model, "dataset_id": dataset_id}
    body = {"job": base, "grid": {"beta": [0.03, 0.1, 0.3]}, "name": "Which beta"}
    sweep_id: str = api.http.post("/sweeps", json=body).json()["id"]
    wait(lambda: api.http.get(f"/sweeps/{sweep_id}").json()["status"] == "finished", "the sweep")
    return sweep_id


def finished(browser: Browser, api: RunningApi, jobs: list[str], ids: dict[str, str]) -> None:
    pages = {
        "job": f"jobs/{jobs[0]}",
        "pairs": f"jobs/{jobs[0]}/pairs",
        "sweep": f"sweeps/{ids['sweep']}",
        "comparison": f"comparison?sweep={ids['sweep']}",
        "dataset": f"datasets/{ids['dataset']}",
        "new-job": f"new?dataset_id={ids['dataset']}",
        "compare": f"compare?jobs={','.join(jobs)}",
    }
    more = {
        "sweeps": "sweeps",
        "datasets": "datasets",
        "dataset-refused": f"datasets/{ids['broken']}",
        "scores": f"jobs/{jobs[0]}/scores",
        "log": f"jobs/{jobs[0]}/log",
        "workers": "workers",
        "words": "words",
    }
    for name, where in (pages | more).items():
        shoot(browser, api, where, name)
    themes: tuple[Theme, ...] = ("light", "dark")
    for theme in themes:
        with open_page(browser, api.url, theme=theme, width=PHONE_WIDTH) as watched:
            for name, where in {"jobs": "jobs", **pages}.items():
                picture(watched.page, where, f"phone-{name}-{theme}", PHONE_HEIGHT)


if __name__ == "__main__":
    main()
