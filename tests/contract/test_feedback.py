"""Feedback on every database: what is kept and for how long, what becomes rows, what deletion takes along."""

from pathlib import Path
from typing import Any

import pytest
from backends import PROJECT, make_backend
from sqlalchemy import update

from core.database.columns import database_after
from core.database.session import Database
from core.database.tables.feedback import ServedAnswer
from core.domain.arenas.feedback import FeedbackKind
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest
from core.services.access import projects
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.row_pages import RowsQuery
from core.services.feedback import answers, cutting, giving
from core.services.feedback.answers import AnswerNotFound, FeedbackFull, NewAnswer
from core.services.feedback.cutting import NoFeedback
from core.services.feedback.giving import Given

PROMPT: Any = [{"role": "user", "content": "Why?"}]


def keep(backend: Backend, *texts: str, name: str = "chatcmpl_1", prompt: Any = PROMPT) -> list[str]:
    served = [
        NewAnswer(id=answers.answer_id_of(name, index), model="talker", prompt=prompt, text=text)
        for index, text in enumerate(texts)
    ]
    answers.keep(backend, PROJECT, "key_1", served)
    return [each.id for each in served]


def give(backend: Backend, answer_id: str, **fields: Any) -> answers.FeedbackView:
    return giving.give(backend, PROJECT, Given(answer_id=answer_id, giver="anna", **fields))


def kept(backend: Backend) -> dict[str, list[FeedbackKind]]:
    page = answers.list_page(backend, PROJECT, keep_days=30, limit=100)
    return {each.id: [item.kind for item in each.feedback] for each in page.data}


def age(backend: Backend, days: float) -> None:
    then = database_after(-days * 24 * 3600)
    backend.database.write(lambda session: session.execute(update(ServedAnswer).values(created_at=then)))


def rows_of(backend: Backend, dataset_id: str) -> list[tuple[Any, ...]]:
    page = datasets.list_rows(backend, PROJECT, dataset_id, RowsQuery())
    found = []
    for row in page.data:
        shown = {name: row[name] for name in ("chosen", "rejected", "completion", "response", "label") if name in row}
        found.append(tuple(v[0]["content"] if isinstance(v, list) else v for v in shown.values()))
    return found


def test_edits_and_preferences_become_pairs_and_thumbs_become_unpaired_rows(backend: Backend) -> None:
    one, two = keep(backend, "So.", "Because.")
    with pytest.raises(NoFeedback):
        cutting.cut(backend, PROJECT, DatasetKind.PREFERENCE)
    give(backend, one, edited="Because it rains.")
    give(backend, two, worse_id=one, comment="says more")
    give(backend, "chatcmpl_1", is_good=False)  # the completion's own id: its first answer
    give(backend, two, is_good=True)
    pairs, is_new = cutting.cut(backend, PROJECT, DatasetKind.PREFERENCE)
    assert is_new
    assert rows_of(backend, pairs.id) == [("Because it rains.", "So."), ("Because.", "So.")]
    thumbs, _ = cutting.cut(backend, PROJECT, DatasetKind.UNPAIRED)
    assert [row[-1] for row in rows_of(backend, thumbs.id)] == [False, True]
    again, is_new = cutting.cut(backend, PROJECT, DatasetKind.PREFERENCE)
    assert (again.sha256, is_new) == (pairs.sha256, False)
    give(backend, one, edited="It rains.")
    grown, is_new = cutting.cut(backend, PROJECT, DatasetKind.PREFERENCE)
    assert is_new
    assert grown.id == f"{pairs.id.partition('@')[0]}@2"
    assert rows_of(backend, grown.id) == [("Because.", "So."), ("It rains.", "So.")], "the latest edit counts"


def test_a_row_that_no_job_can_take_holds_up_no_other(tmp_path: Path, database: Database) -> None:
    backend = make_backend(tmp_path, database, max_line_bytes=2000)
    (long,) = keep(backend, "too long " * 300)
    with pytest.raises(InvalidRequest, match="a row may have 2,000"):
        give(backend, long, is_good=True)
    for place, text in enumerate(("So.", "", "bytes \x00 of a model")):
        (answer_id,) = keep(backend, text, name=f"cmpl_{place}", prompt="Why?" if place % 2 else PROMPT)
        give(backend, answer_id, is_good=place == 0)
    dataset, _ = cutting.cut(backend, PROJECT, DatasetKind.UNPAIRED)
    assert (dataset.num_rows, dataset.num_accepted, dataset.num_rejected, dataset.num_set_aside) == (3, 1, 1, 1)
    assert dataset.report["counts"].keys() >= {"empty-response", "nul-character"}


def test_the_latest_word_on_the_same_counts(backend: Backend) -> None:
    one, two = keep(backend, "So.", "Because.")
    give(backend, one, is_good=True)
    assert give(backend, one, is_good=False).thumb == "down"
    give(backend, one, worse_id=two)
    give(backend, two, worse_id=one)
    assert kept(backend) == {
        one: [FeedbackKind.THUMB, FeedbackKind.PREFERENCE],
        two: [FeedbackKind.PREFERENCE],
    }
    dataset, _ = cutting.cut(backend, PROJECT, DatasetKind.PREFERENCE)
    assert rows_of(backend, dataset.id) == [("Because.", "So.")]
    given = Given(answer_id=one, giver="anna", is_good=True)
    first = giving.give(backend, PROJECT, given, feedback_id="feedback_1")
    assert giving.give(backend, PROJECT, given, feedback_id="feedback_1") == first


def test_what_makes_no_row_is_refused(backend: Backend) -> None:
    one, same = keep(backend, "So.", "So.")
    (other,) = keep(backend, "So what?", name="chatcmpl_2", prompt="Why not?")
    for fields, pointer in (
        ({"edited": "So."}, "/edit"),
        ({"worse_id": other}, "/better_than"),
        ({"worse_id": same}, "/better_than"),
        ({"worse_id": one}, "/better_than"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            give(backend, one, **fields)
        assert [error.pointer for error in refused.value.errors] == [pointer]
    projects.create(backend, "other")
    with pytest.raises(AnswerNotFound):
        giving.give(backend, "other", Given(answer_id=one, giver="x", is_good=True))
    with pytest.raises(AnswerNotFound):
        answers.delete(backend, "other", one)
    answers.delete_all(backend, "other")
    assert set(kept(backend)) == {one, same, other}


def test_answers_without_feedback_go_after_the_retention(tmp_path: Path, database: Database) -> None:
    backend = make_backend(tmp_path, database, feedback_days=3)
    one, two, three = keep(backend, "a", "b", "c")
    give(backend, two, worse_id=one)
    age(backend, 2.9)
    answers.forget_old(backend)
    assert set(kept(backend)) == {one, two, three}
    age(backend, 3.1)
    answers.forget_old(backend)
    assert set(kept(backend)) == {one, two}
    with pytest.raises(AnswerNotFound):
        give(backend, three, is_good=True)
    answers.delete(backend, PROJECT, one)
    assert kept(backend) == {two: []}, "feedback goes with either of its answers"
    with pytest.raises(AnswerNotFound):
        answers.delete(backend, PROJECT, one)
    answers.forget_old(backend)
    assert kept(backend) == {}, "nobody judges it any more"


def test_a_project_keeps_a_bounded_number_and_size(tmp_path: Path, database: Database) -> None:
    backend = make_backend(tmp_path, database, feedback_max_answers=2, feedback_max_bytes=300)
    one, two = keep(backend, "a", "b")
    keep(backend, "a", "b")  # again, as after a lost answer: kept once
    with pytest.raises(FeedbackFull):
        answers.require_room(backend, PROJECT)
    with pytest.raises(FeedbackFull):
        keep(backend, "c", name="chatcmpl_2")
    with pytest.raises(FeedbackFull):
        give(backend, one, edited="x" * 300)
    give(backend, one, is_good=True)
    give(backend, two, is_good=True)
    give(backend, two, is_good=False)  # takes the place of the one before
    with pytest.raises(FeedbackFull):
        give(backend, two, worse_id=one)
    answers.delete_all(backend, PROJECT)
    answers.require_room(backend, PROJECT)
    with pytest.raises(FeedbackFull):
        keep(backend, "x" * 300)
    assert kept(backend) == {}
