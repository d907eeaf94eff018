"""Versions of datasets on every database: numbers, names, digests, jobs that name one, diffs, deletion."""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from backends import PROJECT, submit

from core.database.tables.jobs import Job
from core.datasets.editing import UnknownLines
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest
from core.domain.jobs.job_queries import JobFilter
from core.domain.sweeps import SweepRequest
from core.services.backend import Backend
from core.services.datasets import contents, datasets, intake
from core.services.datasets.datasets import DatasetHasVersions, DatasetInUse, DatasetNotFound
from core.services.datasets.row_pages import RowsQuery
from core.services.datasets.versions import diff, versions
from core.services.datasets.versions.recipes import Edits
from core.services.datasets.versions.versions import Change, Merge, Split, Taking
from core.services.jobs import jobs, repeats, steering
from core.services.operations import garbage_collection
from core.services.sweeps import progress, sweeps
from core.services.views import DatasetView
from core.storage import keys


def pair(number: int, word: str = "good") -> dict[str, Any]:
    return {"prompt": f"Question {number}?", "chosen": f"A {word} answer {number}.", "rejected": f"Nothing {number}."}


def upload(backend: Backend, folder: Path, rows: Sequence[Mapping[str, Any]], **fields: Any) -> str:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return intake.create(backend, PROJECT, intake.Upload(path=path, filename="rows.jsonl", **fields)).id


def change(
    backend: Backend, name: str, *, append: Sequence[str] = (), base: int | None = None, **edits: Any
) -> DatasetView:
    wanted = Change(base_version=base, append=append, edits=Edits(**edits))
    return versions.create(backend, PROJECT, name, wanted, Taking())


def rows_of(backend: Backend, name: str) -> list[dict[str, Any]]:
    return datasets.list_rows(backend, PROJECT, name, RowsQuery(limit=100)).data


def prompts(backend: Backend, name: str) -> list[str]:
    return [row["prompt"] for row in rows_of(backend, name)]


def test_versions_are_numbered_named_and_have_digests(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(number) for number in range(4)])
    more = upload(backend, tmp_path, [pair(7)])
    second = change(backend, root, append=[more])
    assert (second.id, second.version, second.num_accepted) == (f"{root}@2", 2, 5)
    assert second.made_from == {"how": "change", "datasets": {f"{root}@1": 4, f"{more}@1": 1}}
    third = change(backend, root, drop_lines=[1], swap_lines=[2], rows=[pair(9)])
    assert third.made_from == {
        "how": "change", "datasets": {f"{root}@2": 4}, "dropped": 1, "swapped": 1, "added": 1
    }  # fmt: skip
    shown = rows_of(backend, f"{root}@3")
    assert [row["prompt"] for row in shown] == [f"Question {number}?" for number in (1, 2, 3, 7, 9)]
    assert (shown[0]["chosen"], shown[0]["rejected"]) == ("Nothing 1.", "A good answer 1.")
    assert [row["line"] for row in shown] == [1, 2, 3, 4, 5]
    newest = datasets.get(backend, PROJECT, root)
    assert (newest.id, newest.version, newest.sha256) == (root, 3, third.sha256)
    content = b"".join(contents.original(backend, PROJECT, root).chunks)
    assert hashlib.sha256(content).hexdigest() == third.sha256
    assert datasets.get(backend, PROJECT, f"{root}@1").num_accepted == 4
    assert prompts(backend, f"{root}@1") == [f"Question {number}?" for number in range(4)]
    page = versions.list_versions(backend, PROJECT, root, limit=2)
    assert [view.id for view in page.data] == [f"{root}@3", f"{root}@2"]
    rest = versions.list_versions(backend, PROJECT, root, limit=2, cursor=page.next_cursor)
    assert ([view.id for view in rest.data], rest.next_cursor) == ([f"{root}@1"], None)
    listed = datasets.list_page(backend, PROJECT).data
    assert [(view.id, view.version) for view in listed] == [(more, 1), (root, 3)]
    again = change(backend, root, base=1, swap_lines=[1])
    assert (again.version, again.num_accepted) == (4, 4)
    for name in (f"{root}@5", f"{root}@0", f"{root}@x", f"{root}@", f"{root}@1@1"):
        with pytest.raises(DatasetNotFound):
            datasets.get(backend, PROJECT, name)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (DatasetKind.PREFERENCE, [pair(1), pair(2)]),
        (
            DatasetKind.PREFERENCE,
            [
                {
                    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Hi {number}"}],
                    "chosen": [{"role": "assistant", "content": "Hello.", "reasoning_content": "Greet."}],
                    "rejected": [{"role": "assistant", "content": "Bye."}],
                    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
                }
                for number in range(2)
            ],
        ),
        (
            DatasetKind.PREFERENCE,
            [{"prompt": f"q{n}", "responses": [*"abc"], "scores": [3, 2, 1]} for n in (1, 2)],
        ),
        (DatasetKind.DEMONSTRATION, [{"prompt": "", "response": "Once."}, {"prompt": "q", "response": "a"}]),
        (DatasetKind.UNPAIRED, [{"prompt": f"q{n}", "completion": "a", "label": n % 2 == 0} for n in range(3)]),
    ],
    ids=["texts", "messages-with-tools", "ranked-lists", "demonstrations", "unpaired"],
)
def test_rows_of_every_kind_come_through_unchanged(
    backend: Backend, tmp_path: Path, kind: DatasetKind, rows: list[dict[str, Any]]
) -> None:
    root = upload(backend, tmp_path, rows, kind=kind)
    copy = versions.merge(backend, PROJECT, Merge(names=[root]), Taking())
    assert copy.num_accepted == copy.num_rows == len(rows_of(backend, root))
    without = [{name: value for name, value in row.items() if name != "line"} for row in rows_of(backend, root)]
    assert [{k: v for k, v in row.items() if k != "line"} for row in rows_of(backend, copy.id)] == without
    assert diff.diff(backend, PROJECT, copy.id, root).data == []


def test_faults_of_a_change_are_named(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(1), pair(2)])
    other = upload(backend, tmp_path, [{"prompt": "q", "response": "a"}], kind=DatasetKind.DEMONSTRATION)
    with pytest.raises(InvalidRequest, match="Nothing would change"):
        change(backend, root)
    with pytest.raises(InvalidRequest, match="No row would be left"):
        change(backend, root, drop_lines=[1, 2])
    with pytest.raises(UnknownLines, match="line 7, 9") as unknown:
        change(backend, root, drop_lines=[1, 9], swap_lines=[7])
    assert [error.pointer for error in unknown.value.errors] == ["/drop_lines", "/swap_lines"]
    with pytest.raises(InvalidRequest) as refused:
        change(backend, root, append=["ds_nothing", other, root])
    assert [error.pointer for error in refused.value.errors] == ["/append/0", "/append/1"]
    with pytest.raises(InvalidRequest, match="nothing can be swapped"):
        change(backend, other, swap_lines=[1])
    answers = upload(backend, tmp_path, [{"prompt": "q", "response": "a"}], kind=DatasetKind.RESPONSES)
    with pytest.raises(InvalidRequest, match="rows of kind responses have one response each"):
        change(backend, answers, swap_lines=[1])
    with pytest.raises(DatasetNotFound):
        change(backend, root, base=3, drop_lines=[1])
    assert [view.version for view in versions.list_versions(backend, PROJECT, root).data] == [1]


def test_a_job_names_the_version_that_it_reads(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(number) for number in range(4)])
    first = submit(backend, dataset_id=root)
    assert (first.spec["dataset_id"], first.spec["dataset_version"], first.spec["num_pairs"]) == (root, 1, 4)
    change(backend, root, rows=[pair(5)])
    second = submit(backend, dataset_id=root, validation_dataset_id=f"{root}@1")
    assert (second.spec["dataset_id"], second.spec["dataset_version"]) == (f"{root}@2", 2)
    assert (second.spec["num_pairs"], second.spec["validation_dataset_id"]) == (5, root)
    older = submit(backend, dataset_id=root, dataset_version=1)
    assert (older.spec["dataset_id"], older.spec["dataset_version"], older.spec["num_pairs"]) == (root, 1, 4)
    for fields in ({"dataset_version": 3}, {"dataset_id": f"{root}@1", "dataset_version": 2}):
        with pytest.raises(InvalidRequest) as refused:
            submit(backend, **{"dataset_id": root} | fields)
        assert [error.pointer for error in refused.value.errors] == ["/dataset_version"]
    by_name = {name: jobs.list_page(backend, PROJECT, JobFilter(dataset_id=name)).data for name in (root, f"{root}@2")}
    assert [len(found) for found in by_name.values()] == [3, 1]
    change(backend, root, rows=[pair(6)])
    for job in (first, second, older):
        steering.cancel(backend, PROJECT, job.id)
        edit = repeats.DataChange(exclude_lines=[1], swap_lines=[])
        again = repeats.rerun(backend, PROJECT, job.id, edit)
        assert (again.spec["dataset_id"], again.spec["num_pairs"]) == (job.spec["dataset_id"], job.spec["num_pairs"])
        assert again.spec["validation_dataset_id"] == job.spec["validation_dataset_id"]
        retried = repeats.retry(backend, PROJECT, job.id)
        assert (retried.spec, retried.requested) == (job.spec, job.requested)


@pytest.mark.parametrize("field", ["dataset_id", "validation_dataset_id", "sft"])
def test_a_job_whose_version_is_deleted_is_not_repeated_on_another(
    backend: Backend, tmp_path: Path, field: str
) -> None:
    kind = DatasetKind.DEMONSTRATION if field == "sft" else DatasetKind.PREFERENCE
    row: dict[str, Any] = {"prompt": "a", "response": "b"} if field == "sft" else pair(1)
    root = upload(backend, tmp_path, [row, row | {"prompt": "c"}], kind=kind)
    change(backend, root, rows=[row | {"prompt": "d"}])
    fields = {"sft": {"dataset_id": root}} if field == "sft" else {field: root}
    job = submit(backend, **{"dataset_id": upload(backend, tmp_path, [pair(2)])} | fields)
    change(backend, root, drop_lines=[1])
    steering.cancel(backend, PROJECT, job.id)
    datasets.delete(backend, PROJECT, f"{root}@2")
    for repeat in (
        lambda: repeats.retry(backend, PROJECT, job.id),
        lambda: repeats.rerun(backend, PROJECT, job.id, repeats.DataChange(exclude_lines=[], swap_lines=[])),
    ):
        with pytest.raises(InvalidRequest, match=f"there is no dataset {root}@2"):
            repeat()


def test_later_members_of_a_sweep_read_the_version_of_the_first(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(number) for number in range(4)])
    body = {"job": {"base_model": "tiny", "dataset_id": root}, "grid": {"beta": [0.1, 0.2]}}
    sweep = sweeps.create(backend, PROJECT, SweepRequest.model_validate(body))
    assert sweep.requested["job"]["dataset_id"] == f"{root}@1"


@pytest.mark.parametrize("path", ["dataset_id", "sft/dataset_id", "validation_dataset_id"])
def test_a_dataset_of_a_members_own_stays_at_its_version(backend: Backend, tmp_path: Path, path: str) -> None:
    root = upload(backend, tmp_path, [pair(1), pair(2)])
    if path == "sft/dataset_id":
        rows = [{"prompt": "Why?", "response": "So."}, {"prompt": "How?", "response": "Thus."}]
        other = upload(backend, tmp_path, rows, kind=DatasetKind.DEMONSTRATION)
    else:
        other = upload(backend, tmp_path, [pair(3), pair(4)])
    job = {"base_model": "tiny", "dataset_id": root, "reuse": False}
    request = SweepRequest.model_validate({"job": job, "members": [{"beta": 0.2}, {path: other}], "max_parallel": 1})
    sweep = sweeps.create(backend, PROJECT, request)
    progress.step(backend)
    change(backend, other, drop_lines=[1])
    assert not sweeps.extend(backend, PROJECT, sweep.id, [{path: f"{other}@1"}])[1], "it has this one already"
    assert sweeps.extend(backend, PROJECT, sweep.id, [{path: other}])[1], "the newest version is another one"
    steering.cancel(backend, PROJECT, sweep.members[0].job_id)
    for place, version in ((1, 1), (2, 2)):
        progress.step(backend)
        member = sweeps.get(backend, PROJECT, sweep.id).members[place]
        assert member.overrides == {path: f"{other}@{version}"}
        row = backend.database.read(lambda session, job_id=member.job_id: session.get_one(Job, job_id))
        read = {"dataset_id": row.dataset_id, "sft/dataset_id": row.sft_dataset_id}.get(path, row.validation_dataset_id)
        assert (read == other) is (version == 1)
        steering.cancel(backend, PROJECT, member.job_id)


def test_a_sweep_may_go_over_versions_and_over_datasets_that_its_job_does_not_name(
    backend: Backend, tmp_path: Path
) -> None:
    root = upload(backend, tmp_path, [pair(number) for number in range(4)])
    change(backend, root, rows=[pair(9)])
    other = upload(backend, tmp_path, [pair(number) for number in range(20, 23)])
    job = {"base_model": "tiny", "dataset_id": root, "reuse": False}
    made = {}
    for name, setting in {
        "dataset_version": {"grid": {"dataset_version": [1, 2]}},
        "some": {"members": [{"dataset_version": 1}, {"beta": 0.2}]},
        "dataset_id": {"grid": {"dataset_id": [other, root]}},
        "validation": {"grid": {"validation_dataset_id": [other]}},
    }.items():
        sweep = sweeps.create(backend, PROJECT, SweepRequest.model_validate({"job": job} | setting))
        change(backend, root, rows=[pair(10 + len(made))])
        progress.advance(backend, sweep.id)
        members = sweeps.get(backend, PROJECT, sweep.id).members
        assert [member.error for member in members] == [None] * len(members)
        made[name] = [jobs.get(backend, PROJECT, member.job_id).spec for member in members]
    assert [spec["dataset_version"] for spec in made["dataset_version"]] == [1, 2]
    assert [spec["dataset_version"] for spec in made["some"]] == [1, 3]
    assert [spec["dataset_id"].partition("@")[0] for spec in made["dataset_id"]] == [other, root]
    assert made["validation"][0]["validation_dataset_id"] == other


def test_live_jobs_keep_a_version_and_deletion_takes_all(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(1), pair(2)])
    change(backend, root, rows=[pair(3)])
    change(backend, root, rows=[pair(4)])
    job = submit(backend, dataset_id=root, dataset_version=2)
    with pytest.raises(DatasetInUse, match=f"reads {root}@2"):
        datasets.delete(backend, PROJECT, root)
    with pytest.raises(DatasetHasVersions):
        datasets.delete(backend, PROJECT, f"{root}@1")
    datasets.delete(backend, PROJECT, f"{root}@3")
    assert datasets.get(backend, PROJECT, root).version == 2
    assert change(backend, root, rows=[pair(5)]).version == 4, "a number is never given out again"
    steering.cancel(backend, PROJECT, job.id)
    datasets.delete(backend, PROJECT, root)
    for name in (root, f"{root}@2", f"{root}@4"):
        with pytest.raises(DatasetNotFound):
            datasets.get(backend, PROJECT, name)
    while garbage_collection.collect(backend):
        continue
    assert list(backend.store.list(f"{keys.ROOT}{PROJECT}/datasets/")) == []


def test_a_diff_tells_added_removed_and_swapped_rows(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(1), pair(2), pair(2), pair(3), pair(4)])
    change(backend, root, drop_lines=[1, 2], swap_lines=[4], rows=[pair(8), pair(9)])
    found = diff.diff(backend, PROJECT, root, f"{root}@1")
    assert (found.old, found.new) == (f"{root}@1", f"{root}@2")
    assert (found.num_added, found.num_removed, found.num_swapped, found.num_equal) == (2, 2, 1, 2)
    told = [(item.change, item.line, item.old_line, item.row["prompt"]) for item in found.data]
    assert told == [
        ("swapped", 2, 4, "Question 3?"),
        ("added", 4, None, "Question 8?"),
        ("added", 5, None, "Question 9?"),
        ("removed", None, 1, "Question 1?"),
        ("removed", None, 3, "Question 2?"),
    ]
    paged, cursor = [], None
    while True:
        page = diff.diff(backend, PROJECT, root, f"{root}@1", limit=2, cursor=cursor)
        paged += page.data
        cursor = page.next_cursor
        if cursor is None:
            break
    assert paged == found.data


def test_pages_go_on_in_the_version_that_they_began_in(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(number) for number in range(4)])
    change(backend, root, swap_lines=[1])
    before = datasets.list_rows(backend, PROJECT, root, RowsQuery(limit=2))
    change(backend, root, drop_lines=[1])
    rest = datasets.list_rows(backend, PROJECT, root, RowsQuery(limit=2, cursor=before.next_cursor))
    assert [row["prompt"] for row in (*before.data, *rest.data)] == [f"Question {number}?" for number in range(4)]


def test_merging_can_drop_duplicates_and_splitting_keeps_prompts_together(backend: Backend, tmp_path: Path) -> None:
    one = upload(backend, tmp_path, [pair(number, word) for number in range(20) for word in ("good", "fine")])
    two = upload(backend, tmp_path, [pair(3, "good"), pair(40)])
    merged = versions.merge(backend, PROJECT, Merge(names=[one, two], title="both", drops_duplicates=True), Taking())
    assert (merged.name, merged.num_accepted, merged.version) == ("both", 41, 1)
    assert merged.made_from == {"how": "merge", "datasets": {f"{one}@1": 40, f"{two}@1": 1}, "duplicates": 1}
    parts = versions.split(backend, PROJECT, merged.id, Split(fractions=[0.5, 0.25, 0.25], seed=1), Taking())
    sets = [set(prompts(backend, part.id)) for part in parts]
    assert sum(part.num_accepted for part in parts) == 41
    assert sum(map(len, sets)) == len(set.union(*sets)) == 21
    again = versions.split(backend, PROJECT, merged.id, Split(fractions=[0.5, 0.25, 0.25], seed=1), Taking())
    assert [part.sha256 for part in again] == [part.sha256 for part in parts]
    with pytest.raises(InvalidRequest, match="part 2 would have no row"):
        versions.split(backend, PROJECT, two, Split(fractions=[0.999999, 0.000001]), Taking())


def test_the_same_id_is_made_once(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(number) for number in range(12)])
    chosen = "ds_" + "0" * 26
    wanted = Change(edits=Edits(drop_lines=[1]))
    made = [versions.create(backend, PROJECT, root, wanted, Taking(dataset_id=chosen)) for _ in range(2)]
    assert [view.id for view in made] == [f"{root}@2"] * 2
    parts = [
        versions.split(
            backend, PROJECT, f"{root}@1", Split(fractions=[0.5, 0.5], seed=2), Taking(dataset_id="ds_" + "1" * 26)
        )
        for _ in range(2)
    ]
    assert parts[0] == parts[1]


def test_versions_made_at_once_get_numbers_of_their_own(backend: Backend, tmp_path: Path) -> None:
    root = upload(backend, tmp_path, [pair(1), pair(2)])
    made: list[int] = []

    def make(number: int) -> None:
        made.append(change(backend, root, rows=[pair(number)]).version)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(5, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [2, 3, 4, 5]
