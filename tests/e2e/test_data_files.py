"""Every file of the collections of real and of hostile data files, over HTTP, on both databases.

The collections lie beside the repository; without them these tests are skipped, and `tests/unit/datasets` covers the
same ground with files of its own.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from servers import run_postgresql

from core.database.migrate import upgrade

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BROKEN = DATA / "broken"
needs_data = pytest.mark.skipif(not BROKEN.is_dir(), reason="the collection of data files is not here")

MAX_SECONDS = 20
"""For any answer, on a busy machine."""
REFUSED = {
    "bad-empty.jsonl": (422, "empty-file"),
    "bad-only-whitespace.jsonl": (422, "no-rows"),
    "bad-bom-only.jsonl": (422, "no-rows"),
    "bad-not-json.jsonl": (422, "invalid-json"),
    "bad-empty-array.json": (422, "no-rows"),
    "bad-scalar.json": (422, "not-an-object"),
    "bad-array-of-strings.json": (422, "not-an-object"),
    "bad-pretty-printed-rows.jsonl": (422, "pretty-printed"),
    "bad-python-dicts.jsonl": (422, "invalid-json"),
    "bad-comments.jsonl": (422, "invalid-json"),
    "bad-concatenated.jsonl": (422, "invalid-json"),
    "bad-truncated-last-line.jsonl": (422, "invalid-json"),
    "bad-truncated.jsonl.gz": (422, "damaged-file"),
    "bad-gzip-crc.jsonl.gz": (422, "damaged-file"),
    "bad-gzip-trailing-garbage.jsonl.gz": (422, "damaged-file"),
    "bad-latin1.jsonl": (422, "not-utf-8"),
    "bad-png.jsonl": (415, "binary-file"),
    "bad-pickle.pkl": (415, "pickle"),
    "bad-pickle-named.jsonl": (415, "pickle"),
    "bad-html-error-page.jsonl": (422, "invalid-json"),
    "bad-git-lfs-pointer.jsonl": (415, "git-lfs-pointer"),
    "bomb-1gib-zeros.jsonl.gz": (413, "compression-ratio"),
    "bomb-150mb-valid-rows.jsonl.gz": (413, "compression-ratio"),
    "deep-nesting-10000.jsonl": (422, "too-deep"),
    "deep-nesting-100000-open.jsonl": (422, "too-deep"),
    "deep-nesting-objects.jsonl": (422, "too-deep"),
    "many-keys.jsonl": (422, "too-many-keys"),
    "huge-int.jsonl": (422, "invalid-json"),
    "huge-float.jsonl": (422, "invalid-json"),
    "nan-infinity.jsonl": (422, "invalid-json"),
    "row-missing-rejected.jsonl": (422, "missing-field"),
    "row-missing-rejected-everywhere.jsonl": (422, "wrong-kind"),
    "row-prompt-only.jsonl": (422, "unsupported-format"),
    "row-unpaired-kto.jsonl": (422, "wrong-kind"),
    "row-identical-everywhere.jsonl": (422, "no-usable-row"),
    "row-null.jsonl": (422, "null-field"),
    "row-numbers-as-values.jsonl": (422, "wrong-type"),
    "row-bool-and-list.jsonl": (422, "wrong-type"),
    "row-is-array.jsonl": (422, "not-an-object"),
    "row-is-string.jsonl": (422, "not-an-object"),
    "row-duplicate-keys.jsonl": (422, "duplicate-key"),
    "row-wrong-case-keys.jsonl": (422, "wrong-column-names"),
    "row-lone-surrogate.jsonl": (422, "lone-surrogate"),
    "row-nul-escape.jsonl": (422, "nul-character"),
    "row-raw-nul-byte.jsonl": (422, "invalid-json"),
    "row-raw-control-char.jsonl": (422, "invalid-json"),
    "fmt-mixed.jsonl": (422, "mixed-formats"),
    "fmt-hh-different-prompts.jsonl": (422, "different-prompts"),
    "fmt-hh-no-assistant.jsonl": (422, "no-assistant-reply"),
    "fmt-implicit-no-common-prompt.jsonl": (422, "no-common-prompt"),
    "fmt-conv-bad-role.jsonl": (422, "unknown-role"),
    "fmt-conv-ends-with-user.jsonl": (422, "no-assistant-reply"),
    "fmt-conv-empty-messages.jsonl": (422, "empty-messages"),
    "fmt-conv-missing-content.jsonl": (422, "missing-content"),
    "fmt-conv-prompt-differs.jsonl": (422, "different-prompts"),
    "fmt-openai-two-outputs.jsonl": (422, "no-assistant-reply"),
    "fmt-semicolon.csv": (422, "not-utf-8"),
    "fmt-parquet-truncated.parquet": (422, "damaged-file"),
    "fmt-parquet-named.jsonl": (422, "wrong-extension"),
    "archive-zip-slip.zip": (415, "archive"),
    "archive-tar-symlink.tar.gz": (415, "archive"),
    "hostile-filenames.json": (422, "not-an-object"),
}
"""File -> status, and the code that decides it. Whatever is not here is accepted."""
ACCEPTED = {
    "bad-old-mac-cr.jsonl": 12,
    "bad-gz-is-not-gzip.jsonl.gz": 12,
    "bad-gzip-named.jsonl": 12,
    "bad-utf16le-bom.jsonl": 12,
    "bad-utf16be-bom.jsonl": 12,
    "bad-utf32-bom.jsonl": 12,
    "row-differ-only-in-space.jsonl": 12,
    "row-differ-only-in-normal-form.jsonl": 12,
    "row-empty-prompt.jsonl": 12,
    "row-escaped-control-chars.jsonl": 12,
    "fmt-implicit-prefix-mid-word.jsonl": 2,
    "fmt.tsv": 1,
}
"""File -> rows accepted, where the collection leaves it to us, or where the row in question is kept."""
WARNED = {
    "ok-special-tokens-in-text.jsonl": "rendered-text",
    "ok-extra-keys.jsonl": "meaningful-field-ignored",
    "ok-hh-two-assistant-turns.jsonl": "turn-marker-in-response",
    "long-text-400kb-row.jsonl": "long-row",
    "row-identical.jsonl": "identical-pair",
    "row-differ-only-in-space.jsonl": "nearly-identical-pair",
    "row-differ-only-in-normal-form.jsonl": "nearly-identical-pair",
    "row-empty-chosen.jsonl": "empty-chosen",
    "row-empty-rejected.jsonl": "empty-rejected",
    "row-whitespace-completion.jsonl": "empty-chosen",
    "row-empty-prompt.jsonl": "empty-prompt",
    "row-swapped-roles-warning.jsonl": "reversed-pair",
    "row-all-duplicates.jsonl": "duplicate-row",
}
"""Accepted, with this warning."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    text: str
    seconds: float

    @property
    def issues(self) -> list[dict[str, Any]]:
        issues: list[dict[str, Any]] = self.body["report"]["issues"]
        return issues

    def lines(self, *codes: str) -> set[int]:
        return {issue["line"] for issue in self.issues if not codes or issue["code"] in codes}


def expectations() -> list[dict[str, Any]]:
    path = BROKEN / "expected.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


EXPECTED = {entry["file"]: entry for entry in expectations()}
SKIPPABLE = sorted(name for name, entry in EXPECTED.items() if entry["verdict"] == "rows" or "good_rows" in entry)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        with serve(folder) as running:
            yield running
        return
    with run_postgresql() as server:
        url = server.create_database("data_files")
        upgrade(url)
        with serve(folder, database_url=url) as running:
            yield running


def send(api: RunningApi, path: Path, filename: str | None = None, **fields: str) -> Answer:
    begin = time.monotonic()
    with path.open("rb") as file:
        response = api.http.post("/datasets", data=fields, files={"file": (filename or path.name, file)})
    return Answer(response.status_code, response.json(), response.text, time.monotonic() - begin)


@pytest.fixture(scope="module")
def answers(api: RunningApi) -> dict[tuple[str, str], Answer]:
    """Of each file, with `on_error` as it comes; of those with good rows beside bad ones also with `skip`."""
    wanted = [(name, "reject") for name in EXPECTED]
    if not api.backend.database.is_postgresql:  # the database has no part in it
        wanted += [(name, "skip") for name in SKIPPABLE if name in REFUSED]
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda item: send(api, BROKEN / item[0], on_error=item[1]), wanted)
        return dict(zip(wanted, found, strict=True))


@needs_data
@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_is_answered_as_the_table_says(answers: dict[tuple[str, str], Answer], name: str) -> None:
    answer, entry = answers[name, "reject"], EXPECTED[name]
    assert answer.seconds < MAX_SECONDS
    assert "Traceback" not in answer.text
    if name in REFUSED:
        assert entry["verdict"] not in ("accept", "warn")
        must_be_refused(answer, name)
    else:
        assert entry["verdict"] != "reject"
        must_be_accepted(answer, name)


def must_be_refused(answer: Answer, name: str) -> None:
    status, code = REFUSED[name]
    assert (answer.status, answer.body["status"]) == (status, status), answer.text
    assert code in answer.body["report"]["counts"]
    assert len(answer.body["detail"]) > 20
    assert answer.body["errors"]
    for line in EXPECTED[name].get("bad_lines", []):
        assert line in answer.lines(code)
        if status == 422 and code not in ("pretty-printed",):
            assert f"line {line}" in answer.body["detail"]


def must_be_accepted(answer: Answer, name: str) -> None:
    assert answer.status == 201, answer.text
    assert answer.body["num_accepted"] == ACCEPTED.get(name, EXPECTED[name].get("good_rows"))
    assert not [issue for issue in answer.issues if issue["severity"] == "error"]
    if name in WARNED:
        assert EXPECTED[name].get("bad_lines", [None])[0] in {None, *answer.lines(WARNED[name])}
        assert answer.body["report"]["counts"][WARNED[name]] > 0
    elif EXPECTED[name]["verdict"] in ("accept", "policy"):
        assert answer.issues == []


@needs_data
@pytest.mark.parametrize("name", [name for name in SKIPPABLE if name in REFUSED])
def test_with_skip_the_good_rows_are_kept_and_the_bad_one_named(
    answers: dict[tuple[str, str], Answer], name: str
) -> None:
    if (name, "skip") not in answers:
        pytest.skip("on SQLite")
    answer = answers[name, "skip"]
    assert answer.status == 201, answer.text
    assert answer.body["num_accepted"] == EXPECTED[name]["good_rows"]
    assert answer.lines(REFUSED[name][1]) == set(EXPECTED[name]["bad_lines"])


@needs_data
@pytest.mark.parametrize("name", ["bomb-1gib-zeros.jsonl.gz", "bomb-150mb-valid-rows.jsonl.gz"])
def test_bombs_are_refused_within_five_seconds(api: RunningApi, answers: object, name: str) -> None:
    answer = send(api, BROKEN / name)
    assert answer.status == 413
    assert answer.seconds < 5


@needs_data
def test_nothing_is_left_of_what_was_refused(api: RunningApi, answers: dict[tuple[str, str], Answer]) -> None:
    kept = {answer.body["id"] for answer in answers.values() if answer.status == 201}
    listed: set[str] = set()
    cursor = None
    while True:
        page = api.http.get("/datasets", params={"limit": 100} | ({"cursor": cursor} if cursor else {})).json()
        listed |= {item["id"] for item in page["data"]}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert kept <= listed
    objects = api.settings.data_dir / "objects" / "projects" / "default" / "datasets"
    assert {path.name for path in objects.iterdir()} == listed
    assert [path for path in api.settings.scratch_dir.rglob("*") if path.is_file() and path.name != "lock"] == []


@needs_data
def test_texts_come_back_as_they_were(api: RunningApi, answers: dict[tuple[str, str], Answer]) -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        dataset_id = answers[name, "reject"].body["id"]
        data: list[dict[str, Any]] = api.http.get(f"/datasets/{dataset_id}/rows", params={"limit": 100}).json()["data"]
        return [{key: value for key, value in row.items() if key != "line"} for row in data]

    for plain in ("ok-crlf.jsonl", "ok-utf8-bom.jsonl", "ok-gzip-two-members.jsonl.gz", "bad-utf16le-bom.jsonl",
                  "bad-old-mac-cr.jsonl", "ok-array.json", "ok-blank-lines-inside.jsonl", "fmt.parquet"):  # fmt: skip
        assert rows(plain) == rows("ok-plain.jsonl"), plain
    direct = [json.loads(line) for line in (BROKEN / "ok-emoji-rtl.jsonl").read_text().split("\n") if line]
    assert rows("ok-emoji-rtl.jsonl") == direct == rows("ok-emoji-escaped.jsonl")
    marked = [json.loads(line) for line in (BROKEN / "ok-markup-in-text.jsonl").read_text().split("\n") if line]
    assert rows("ok-markup-in-text.jsonl") == marked
    cut = rows("fmt-implicit-prefix-mid-word.jsonl")
    assert [(row["chosen"].split()[0], row["rejected"].split()[0]) for row in cut] == [
        ("Paris", "Pa,"),
        ("19", "15"),
    ]


@needs_data
def test_names_of_files_are_data(api: RunningApi) -> None:
    if not api.backend.database.is_postgresql:
        pytest.skip("on PostgreSQL, which is the pickier about text")
    names = json.loads((BROKEN / "hostile-filenames.json").read_text())
    before = {path for path in DATA.parent.rglob("*") if "objects" not in path.parts}
    for name in names:
        answer = send(api, BROKEN / "ok-plain.jsonl", filename=name)
        assert answer.status == 201, (name, answer.text)
        shown = answer.body["name"]
        assert shown.isprintable()
        assert shown
        assert "/" not in shown
        content = api.http.get(f"/datasets/{answer.body['id']}/content")
        assert content.content == (BROKEN / "ok-plain.jsonl").read_bytes()
        assert "X-Injected" not in content.headers
    assert send(api, BROKEN / "ok-plain.jsonl", filename="дані-💾.jsonl").body["name"] == "дані-💾.jsonl"
    assert api.http.get("/datasets", params={"limit": 100}).status_code == 200
    assert {path for path in DATA.parent.rglob("*") if "objects" not in path.parts} == before
