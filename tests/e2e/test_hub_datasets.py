"""Datasets of the hub's library over the service: pull, upload of a saved folder, and rows that it opens."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from browser import open_page
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from cli.main import app

datasets = pytest.importorskip("datasets", reason="the datasets library is not installed: pip install 'preftune[hub]'")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"prompt": f"Number {n}?", "chosen": f"Yes, {n}.", "rejected": "No\nnever"} for n in range(30)]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("hub"))) as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def run(api: RunningApi, *arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["datasets", *arguments, "--url", api.url])


def rows_of(api: RunningApi, output: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    dataset_id = next(line for line in reversed(output.splitlines()) if line.startswith("ds_"))
    rows = api.http.get(f"/datasets/{dataset_id}/rows", params={"limit": 100}).json()["data"]
    dataset: dict[str, Any] = api.http.get(f"/datasets/{dataset_id}").json()
    return dataset, [{name: value for name, value in row.items() if name != "line"} for row in rows]


def repository(folder: Path) -> Path:
    """A repository without a script, as most of the hub are: data files, and configurations in the README."""
    for name, rows in (("train", ROWS), ("test", ROWS[:2])):
        path = folder / "plain" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    configs = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: plain/{file}.jsonl\n"
        + ("  - split: test\n    path: plain/test.jsonl\n" if name == "all" else "")
        for name, file in (("all", "train"), ("few", "test"))
    )
    (folder / "README.md").write_text(f"---\n{configs}---\n")
    return folder


def test_a_split_of_a_configuration_is_pulled(api: RunningApi, tmp_path: Path) -> None:
    folder = repository(tmp_path / "house-style")
    done = run(api, "pull", str(folder), "--config", "all", "--split", "train")
    assert done.exit_code == 0, done.output
    dataset, rows = rows_of(api, done.stdout)
    assert rows == ROWS
    assert dataset["name"] == "house-style all train"
    assert dataset["metadata"] == {"source": "house-style", "config": "all", "split": "train"}


def test_what_is_not_chosen_is_asked_for(api: RunningApi, tmp_path: Path) -> None:
    folder = repository(tmp_path / "house-style")
    several = run(api, "pull", str(folder), "--config", "all")
    assert (several.exit_code, "--split train" in several.stderr) == (2, True), several.stderr
    unnamed = run(api, "pull", str(folder))
    assert (unnamed.exit_code, "Config name is missing" in unnamed.stderr) == (1, True), unnamed.stderr
    few = run(api, "pull", str(folder), "--config", "few")
    assert rows_of(api, few.stdout)[1] == ROWS[:2]


def test_the_hub_is_asked_for_the_commit(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    done = run(api, "pull", f"some-org/pairs@{COMMIT}", "--split", "train")
    assert done.exit_code == 0, done.output
    assert asked == [(("some-org/pairs",), {"name": None, "split": "train", "revision": COMMIT})]
    assert rows_of(api, done.stdout)[0]["metadata"] == {"source": f"some-org/pairs@{COMMIT}", "split": "train"}
    branch = run(api, "pull", "some-org/pairs@main")
    assert (branch.exit_code, "40 hexadecimal digits" in branch.stderr) == (2, True)


def test_without_the_library_the_command_says_what_to_install(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "preftune.cli.dataset_pull", None)
    done = run(api, "pull", f"some-org/pairs@{COMMIT}")
    assert done.exit_code == 1
    assert "pip install 'preftune[hub]'" in done.stderr


def test_a_saved_folder_is_uploaded_and_its_rows_open_again(api: RunningApi, tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:1]))
    saved.save_to_disk(tmp_path / "saved")
    with tarfile.open(tmp_path / "saved.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "saved", arcname="saved")
    refused = run(api, "upload", str(tmp_path / "saved.tar.gz"))
    assert (refused.exit_code, "--split train" in refused.stderr) == (1, True), refused.output
    done = run(api, "upload", str(tmp_path / "saved.tar.gz"), "--split", "train")
    dataset, rows = rows_of(api, done.stdout)
    assert rows == ROWS

    for form in ("hf", "parquet", "original"):
        fetched = run(api, "download", dataset["id"], str(tmp_path / form), "--format", form)
        assert fetched.exit_code == 0, fetched.output
    assert (tmp_path / "original").read_bytes() == (tmp_path / "saved.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "hf") as tar:
        tar.extractall(tmp_path, filter="data")
    text = datasets.Value("string")
    loaded = datasets.load_from_disk(tmp_path / dataset["id"])
    assert loaded.features == {"line": datasets.Value("int64"), "prompt": text, "chosen": text, "rejected": text}
    assert loaded.remove_columns("line").to_list() == ROWS
    table = datasets.Dataset.from_parquet(str(tmp_path / "parquet"), cache_dir=str(tmp_path / "cache"))
    assert table.remove_columns("line").to_list() == ROWS


def test_the_dashboard_asks_for_the_split_of_a_tar(browser: Browser, api: RunningApi, tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:1]))
    saved.save_to_disk(tmp_path / "saved")
    with tarfile.open(tmp_path / "saved.tar", "w") as tar:
        tar.add(tmp_path / "saved", arcname="saved")
    (tmp_path / "pairs.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/datasets")
        split = page.get_by_label("Split of a saved DatasetDict")
        page.locator("#file").set_input_files(tmp_path / "pairs.jsonl")
        expect(split).to_be_hidden()
        page.locator("#file").set_input_files(tmp_path / "saved.tar")
        split.fill("test")
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text("1 row read: 1 usable")).to_be_visible()
        watched.check()


def test_texts_beside_messages_are_no_export(api: RunningApi) -> None:
    rows = [{"system": system, **row} for system, row in zip(("", "Be brief."), ROWS, strict=False)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    dataset = api.http.post("/datasets", content=content).json()
    response = api.http.get(f"/datasets/{dataset['id']}/content", params={"format": "hf"})
    assert (response.status_code, response.json()["code"]) == (409, "dataset-mixed")
    unknown = api.http.get(f"/datasets/{dataset['id']}/content", params={"format": "csv"})
    assert unknown.status_code == 422


def test_the_same_rows_are_the_same_bytes(api: RunningApi) -> None:
    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    dataset = api.http.post("/datasets", content=content).json()
    first, second = (
        api.http.get(f"/datasets/{dataset['id']}/content", params={"format": "hf"}).content for _ in range(2)
    )
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {member.name.partition("/")[0] for member in tar} == {dataset["id"]}
