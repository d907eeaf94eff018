"""Arenas on every database: pairs without double work, votes that count once, standing, rows that jobs can take."""

import asyncio
import shutil
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from backends import BASE_MODEL, PROJECT, submit
from scripted_runner import ScriptedRunner
from sqlalchemy import update
from tiny_models import make_tiny_model

from core.database.columns import database_after
from core.database.tables.arenas import ArenaLease
from core.domain.arenas.arenas import ArenaRequest, Choice, is_swapped, win_rate
from core.domain.errors import DomainError, InvalidRequest
from core.services.arenas import answers, arenas, cutting, voting
from core.services.arenas.arenas import ArenaNotFound, ArenaView
from core.services.arenas.voting import AlreadyVoted, ArenaClosed, HeldPair, PairTaken, Vote, VoteNotFound
from core.services.backend import Backend
from core.services.chat import answering
from core.services.chat.answering import Question
from core.services.chat.runner import (
    ContextTooLong,
    GenerationRequest,
    ModelNotServed,
    ModelTooLarge,
    RunnerEvent,
    RunnerUnavailable,
)
from core.services.chat.served_models import ModelNotFound
from core.services.datasets import contents, datasets, intake
from core.services.datasets.row_pages import RowsQuery


def rows(number: int) -> list[dict[str, Any]]:
    return [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(number)]


def upload(backend: Backend, folder: Path, found: Sequence[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in found))
    return intake.create(backend, PROJECT, intake.Upload(path=path, filename="rows.jsonl")).id


def make(backend: Backend, folder: Path, number: int = 6, **fields: Any) -> ArenaView:
    body = {"dataset_id": upload(backend, folder, rows(number)), "name": "rows"} | fields
    return arenas.create(backend, PROJECT, ArenaRequest.model_validate(body))


def lease(backend: Backend, arena: ArenaView, voter: str, count: int = 1) -> list[HeldPair]:
    return voting.lease(backend, PROJECT, arena.id, voter, count)


def vote(
    backend: Backend, arena: ArenaView, pair: HeldPair, voter: str, choice: Choice, **fields: Any
) -> voting.VoteView:
    return voting.vote(backend, PROJECT, arena.id, Vote(pair_id=pair.id, voter=voter, choice=choice, **fields))


def side_of(pair: HeldPair, answer: str) -> Choice:
    return "left" if str(pair.left).startswith(answer) else "right"


def test_pairs_are_given_to_one_voter_at_a_time(backend: Backend, tmp_path: Path) -> None:
    arena = make(backend, tmp_path, 3)
    anna, ben = lease(backend, arena, "anna", 2), lease(backend, arena, "ben", 4)
    assert [pair.position for pair in anna] == [1, 2]
    assert [pair.position for pair in ben] == [3]
    assert lease(backend, arena, "anna", 2) == anna, "the same pairs on the same sides"
    assert lease(backend, arena, "carl") == []
    with pytest.raises(PairTaken):
        vote(backend, arena, anna[0], "carl", "left")
    voting.release(backend, PROJECT, arena.id, "anna", [anna[1].id])
    assert [pair.id for pair in lease(backend, arena, "carl")] == [anna[1].id]
    backend.database.write(lambda session: session.execute(update(ArenaLease).values(expires_at=database_after(-1))))
    assert [pair.position for pair in lease(backend, arena, "dora", 4)] == [1, 2, 3], "leases end"
    with pytest.raises(PairTaken):
        vote(backend, arena, anna[0], "anna", "left")


def test_a_vote_counts_once_and_can_be_taken_back(backend: Backend, tmp_path: Path) -> None:
    arena = make(backend, tmp_path, 2)
    pair = lease(backend, arena, "anna")[0]
    better = side_of(pair, "good")
    first = vote(backend, arena, pair, "anna", better, comment="clear")
    assert (first.winner, first.verdict, {first.left, first.right}) == ("chosen", better, {"chosen", "rejected"})
    assert vote(backend, arena, pair, "anna", better).id == first.id
    with pytest.raises(AlreadyVoted):
        vote(backend, arena, pair, "anna", "tie")
    with pytest.raises(PairTaken):
        vote(backend, arena, pair, "ben", "tie")
    assert arenas.get(backend, PROJECT, arena.id).num_decided == 1
    voting.retract(backend, PROJECT, arena.id, first.id)
    with pytest.raises(VoteNotFound):
        voting.retract(backend, PROJECT, arena.id, first.id)
    assert vote(backend, arena, lease(backend, arena, "anna")[0], "anna", "both_bad").winner is None
    found = arenas.get(backend, PROJECT, arena.id)
    assert (found.num_votes, found.num_both_bad, found.num_decided) == (1, 1, 1)
    arenas.set_open(backend, PROJECT, arena.id, is_open=False)
    with pytest.raises(ArenaClosed):
        lease(backend, arena, "anna")


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("place", ["arena.leased", "vote.in_transaction", "vote.committed"])
def test_a_process_that_dies_anywhere_loses_no_vote_and_counts_none_twice(
    backend: Backend, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = make(backend, tmp_path, 1)

    def die(name: str) -> None:
        if name == place:
            raise Killed

    def lease_and_vote() -> None:
        for pair in lease(backend, arena, "anna"):
            vote(backend, arena, pair, "anna", "left")

    with monkeypatch.context() as dying:
        dying.setattr(voting, "reach", die)
        with pytest.raises(Killed):
            lease_and_vote()
    assert arenas.get(backend, PROJECT, arena.id).num_votes == (place == "vote.committed")
    lease_and_vote()
    assert arenas.get(backend, PROJECT, arena.id).num_votes == 1


def test_sides_are_drawn_for_each_voter_and_stay() -> None:
    drawn = [is_swapped(0, f"pair_{n}", voter) for n in range(200) for voter in ("anna", "ben")]
    assert 150 < sum(drawn) < 250
    assert drawn[::2] != drawn[1::2], "voters see different sides"
    assert drawn == [is_swapped(0, f"pair_{n}", voter) for n in range(200) for voter in ("anna", "ben")]


def test_standing_counts_ties_half_with_wilsons_interval(backend: Backend, tmp_path: Path) -> None:
    arena = make(backend, tmp_path, 4)
    for choice in ("good", "good", "bad", "tie"):
        pair = lease(backend, arena, "anna")[0]
        vote(backend, arena, pair, "anna", "tie" if choice == "tie" else side_of(pair, choice))
    best, other = arenas.get(backend, PROJECT, arena.id).standing
    assert (best.model, best.wins, best.losses, best.win_rate) == ("chosen", 2, 1, 0.625)
    assert (other.model, other.win_rate) == ("rejected", 0.375)
    assert best.low == pytest.approx(1 - other.high)
    assert win_rate(40, 20, 80) == pytest.approx((0.625, 0.5155, 0.7231), abs=1e-4)
    assert win_rate(0, 0, 0) == (0.5, 0.0, 1.0)
    assert win_rate(9, 0, 9).high == 1.0


def test_several_votes_for_a_pair_are_of_different_people(backend: Backend, tmp_path: Path) -> None:
    arena = make(backend, tmp_path, 1, votes_per_pair=3)
    held = {voter: lease(backend, arena, voter) for voter in ("anna", "ben", "carl", "dora")}
    assert [len(pairs) for pairs in held.values()] == [1, 1, 1, 0]
    for voter, answer in (("anna", "good"), ("ben", "bad"), ("carl", "bad")):
        pair = held[voter][0]
        vote(backend, arena, pair, voter, side_of(pair, answer))
    made, is_new = cutting.cut(backend, PROJECT, arena.id)
    assert is_new
    assert datasets.list_rows(backend, PROJECT, made.id, RowsQuery()).data[0]["chosen"] == "bad 0"


def test_votes_become_versions_of_a_dataset_that_a_job_takes(backend: Backend, tmp_path: Path) -> None:
    arena = make(backend, tmp_path, 6)
    with pytest.raises(cutting.NothingDecided):
        cutting.cut(backend, PROJECT, arena.id)
    for choice in ("bad", "tie"):
        pair = lease(backend, arena, "anna")[0]
        vote(backend, arena, pair, "anna", "tie" if choice == "tie" else side_of(pair, choice), comment="why")
    first, is_new = cutting.cut(backend, PROJECT, arena.id)
    assert (is_new, first.version, first.num_accepted) == (True, 1, 1)
    assert cutting.cut(backend, PROJECT, arena.id) == (datasets.get(backend, PROJECT, f"{first.id}@1"), False)
    job = submit(backend, dataset_id=first.id)
    pair = lease(backend, arena, "ben")[0]
    vote(backend, arena, pair, "ben", side_of(pair, "good"))
    second, _ = cutting.cut(backend, PROJECT, arena.id)
    assert (second.id, second.num_accepted) == (f"{first.id}@2", 2)
    assert second.made_from is not None
    assert (second.made_from["how"], second.made_from["models"]) == ("votes", ["chosen", "rejected"])
    assert submit(backend, dataset_id=first.id).spec["dataset_version"] == 2
    assert job.spec["num_pairs"] == 1
    assert arenas.get(backend, PROJECT, arena.id).dataset_id == first.id
    stored = datasets.list_rows(backend, PROJECT, second.id, RowsQuery()).data
    assert [(row["chosen"], row["rejected"]) for row in stored] == [("bad 0", "good 0"), ("good 2", "bad 2")]
    lines = b"".join(contents.original(backend, PROJECT, second.id).chunks).splitlines()
    told = orjson.loads(lines[0])["vote"]
    assert (told["chosen_model"], told["votes"][0]["voter"], told["votes"][0]["comment"]) == ("rejected", "anna", "why")
    assert told["votes"][0]["at"]
    arenas.delete(backend, PROJECT, arena.id)
    with pytest.raises(ArenaNotFound):
        arenas.get(backend, PROJECT, arena.id)
    assert datasets.get(backend, PROJECT, first.id).version == 2


def test_prompts_are_drawn_once_each(backend: Backend, tmp_path: Path) -> None:
    found = [*rows(30), *rows(30)]
    arena = make(backend, tmp_path, dataset_id=upload(backend, tmp_path, found), num_pairs=20)
    assert arena.num_pairs == 20
    pairs = [pair for voter in range(5) for pair in lease(backend, arena, f"v{voter}", 4)]
    assert len({pair.prompt for pair in pairs}) == 20


def test_faults_are_named(backend: Backend) -> None:
    wrong = {"models": ["tiny", "job_none"], "prompts": ["Why?"]}
    with pytest.raises(InvalidRequest) as refused:
        arenas.create(backend, PROJECT, ArenaRequest.model_validate(wrong))
    assert [error.pointer for error in refused.value.errors] == ["/models/1"]
    with pytest.raises(InvalidRequest) as refused:
        arenas.create(backend, PROJECT, ArenaRequest.model_validate({"dataset_id": "ds_none"}))
    assert [error.pointer for error in refused.value.errors] == ["/dataset_id"]


def test_four_voters_at_once_judge_each_pair_once(backend: Backend, tmp_path: Path) -> None:
    arena = make(backend, tmp_path, 24)
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def judge(voter: str) -> None:
        while held := lease(backend, arena, voter, 2):
            for pair in held:
                with lock:
                    seen[pair.id] += 1
                vote(backend, arena, pair, voter, "left")

    threads = [threading.Thread(target=judge, args=(f"voter {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arenas.get(backend, PROJECT, arena.id).num_votes == 24
    assert set(seen.values()) == {1}


@pytest.fixture
def tiny(backend: Backend) -> Backend:
    make_tiny_model(backend.settings.models_dir / BASE_MODEL)
    shutil.copytree(backend.settings.models_dir / BASE_MODEL, backend.settings.models_dir / "other")
    return backend


def ask(backend: Backend, runner: Any, arena: ArenaView, voter: str, count: int = 1) -> list[HeldPair]:
    asked = answers.Voter(project_id=PROJECT, arena_id=arena.id, name=voter)
    return asyncio.run(answers.next_pairs(backend, runner, asked, count))


def said(backend: Backend, text: str) -> list[int]:
    question = answering.prepare(backend, PROJECT, Question(model=BASE_MODEL, prompt="x"))
    return [*question.shared.tokenizer.encode_text(text), question.shared.tokenizer.eos_ids[0]]


def test_two_models_answer_when_a_pair_is_asked_for(tiny: Backend) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    body = {"models": [BASE_MODEL, "other"], "prompts": [messages, "Once", "Twice"], "sampling": {"temperature": 0}}
    arena = arenas.create(tiny, PROJECT, ArenaRequest.model_validate(body))
    texts = ["So.", "Since.", "same", "same", "upon", "a time"]
    runner = TurnsRunner(answers=[said(tiny, text) for text in texts])
    first = ask(tiny, runner, arena, "anna")[0]
    assert {str(first.left), str(first.right)} == {
        str([{"role": "assistant", "content": text}]) for text in ("So.", "Since.")
    }
    assert ask(tiny, runner, arena, "anna") == [first], "answers are made once"
    assert [request.model.name for request in runner.asked] == [BASE_MODEL, "other"]
    assert runner.asked[0].sampling.temperature == 0
    won = vote(tiny, arena, first, "anna", side_of(first, "[{'role': 'assistant', 'content': 'So"))
    assert won.winner == BASE_MODEL
    second = ask(tiny, runner, arena, "anna")[0]
    assert (second.position, {second.left, second.right}) == (3, {"upon", "a time"}), "equal answers are passed over"
    assert arenas.get(tiny, PROJECT, arena.id).num_equal == 1
    vote(tiny, arena, second, "anna", "left")
    made, _ = cutting.cut(tiny, PROJECT, arena.id)
    line = b"".join(contents.original(tiny, PROJECT, made.id).chunks).splitlines()[0]
    assert orjson.loads(line)["vote"]["sampling"]["temperature"] == 0
    assert made.num_accepted == 2


def test_an_answer_that_no_row_can_hold_is_no_pair(tiny: Backend) -> None:
    body = {"models": [BASE_MODEL, "other"], "prompts": ["Once"]}
    arena = arenas.create(tiny, PROJECT, ArenaRequest.model_validate(body))
    assert ask(tiny, TurnsRunner(answers=[said(tiny, "upon \x00"), said(tiny, "a time")]), arena, "anna") == []
    assert arenas.get(tiny, PROJECT, arena.id).num_failed == 1


class TurnsRunner(ScriptedRunner):
    """Gives the answer after the last one to each request."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        answer = self.answers[len(self.asked)]
        self.asked.append(request)
        async for event in ScriptedRunner(answers=[answer]).generate(request):
            yield event


class FailingRunner(ScriptedRunner):
    error: type[DomainError] = RunnerUnavailable

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RunnerEvent, None]:
        raise self.error("No answer.")
        yield


@pytest.mark.parametrize("error", [RunnerUnavailable, ModelNotServed, ModelTooLarge])
def test_pairs_are_free_again_where_the_runner_fails(tiny: Backend, error: type[DomainError]) -> None:
    body = {"models": [BASE_MODEL, "other"], "prompts": ["Once"]}
    arena = arenas.create(tiny, PROJECT, ArenaRequest.model_validate(body))
    failing = FailingRunner(answers=[])
    failing.error = error
    with pytest.raises(error):
        ask(tiny, failing, arena, "anna")
    runner = TurnsRunner(answers=[said(tiny, "one"), said(tiny, "two")])
    assert len(ask(tiny, runner, arena, "ben")) == 1


def test_a_pair_that_no_model_can_answer_is_passed_over_and_a_model_that_is_gone_spends_none(tiny: Backend) -> None:
    body = {"models": [BASE_MODEL, "other"], "prompts": ["Once", "Twice"]}
    arena = arenas.create(tiny, PROJECT, ArenaRequest.model_validate(body))
    (tiny.settings.models_dir / "other").rename(tiny.settings.models_dir / "kept")
    with pytest.raises(ModelNotFound):
        ask(tiny, TurnsRunner(answers=[said(tiny, "one")] * 2), arena, "anna", 2)
    assert arenas.get(tiny, PROJECT, arena.id).num_failed == 0
    (tiny.settings.models_dir / "kept").rename(tiny.settings.models_dir / "other")
    failing = FailingRunner(answers=[])
    failing.error = ContextTooLong
    assert ask(tiny, failing, arena, "anna", 2) == []
    assert arenas.get(tiny, PROJECT, arena.id).num_failed == 2


def test_an_arena_is_refused_that_asks_for_too_much(
    tiny: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"models": [BASE_MODEL, "other"], "prompts": ["Once"], "sampling": {"max_tokens": 8192}}
    with pytest.raises(InvalidRequest) as refused:
        arenas.create(tiny, PROJECT, ArenaRequest.model_validate(body))
    assert [error.pointer for error in refused.value.errors] == ["/sampling/max_tokens"]
    monkeypatch.setattr(arenas, "MAX_BYTES", 500)
    assert make(tiny, tmp_path, 6).num_pairs == 6
    with pytest.raises(InvalidRequest) as refused:
        make(tiny, tmp_path, 30)
    assert [error.pointer for error in refused.value.errors] == ["/num_pairs"]
