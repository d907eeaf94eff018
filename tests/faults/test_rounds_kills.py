"""Kills of worker, API, database and a worker's programs during three rounds of the real engine: as if there were none.

`make test-rounds` runs it, with KILLS kills; PostgreSQL is stopped at once, without a shutdown, and started again.
"""

import json
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from backends import PROJECT, add_dataset
from faults.checker import weights_sha256_of
from faults.grounds import Grounds
from faults.real_trainer import REAL
from faults.world import Api, Options, World
from sqlalchemy import func, select
from toy_jobs import wait_for

from core.database.tables.generations import GenerationPart
from core.database.tables.objects import Checkpoint
from core.domain.errors import Unavailable
from core.services.backend import Backend
from core.services.datasets import contents
from core.services.judgements import judgements
from core.services.rounds import rounds
from core.services.rounds.view import RoundsView
from core.storage import keys

NUM_KILLS = int(os.environ.get("KILLS", "60"))
VICTIMS = ("worker", "api", "program", "database")
"""`program`: a trainer, or what answers, scores or checks a dataset."""
POINTS = (
    "rounds.child_created",
    "rounds.child_noted",
    "rounds.in_transaction",
    "rounds.step_recorded",
    "rounds.planned",
)
PATIENCE_SECONDS = 900.0
NUM_PROMPTS = 48
FILE = "ds_prompts"
REQUEST: dict[str, Any] = {
    "job": {
        "base_model": "tiny",
        "dataset_id": FILE,
        "dpo": {"epochs": 5, "batch_size": 2, "learning_rate": 1e-3},
        "max_length": 128,
        "validation_fraction": 0.2,
        "precision": "fp32",
        "evaluate_every_steps": 4,
        "checkpoint_every_steps": 2,
        "reuse": False,
    },
    "judge": {"kind": "length"},
    "num_rounds": 3,
    "generation": {"num_prompts": 24, "num_samples": 6, "sampling": {"max_tokens": 16, "seed": 3}},
    "evaluation": {"held_out_fraction": 0.3, "sampling": {"max_tokens": 16, "seed": 5}},
    "file_ratio": 0.5,
    "stop_early": False,
    "seed": 1,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


@pytest.fixture
def world() -> Iterator[World]:
    with Grounds.open() as grounds:
        made = World(grounds, Options(database="postgresql", trainer=REAL))
        rows = [
            {"line": n, "prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}!"}
            for n in range(1, NUM_PROMPTS + 1)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        made.backend.store.put_bytes(keys.dataset_rows(PROJECT, FILE), text.encode())
        add_dataset(made.backend, FILE, num_rows=len(rows))
        try:
            yield made
        finally:
            made.close()


def test_kills_change_no_dataset_and_no_weight(world: World) -> None:
    api = world.start_api()
    api.wait_until_up()
    worker = world.start()
    undisturbed = start(api, "undisturbed")
    wait_until_over(world.backend, undisturbed)
    worker.send(signal.SIGTERM)
    worker.wait()
    disturbed = start(api, "disturbed")
    struck = Strikes(world, api, disturbed).until_over()
    print(f"\n{sum(struck.values())} kills: {dict(struck)}")  # noqa: T201
    first, second = (rounds.get(world.backend, PROJECT, each) for each in (undisturbed, disturbed))
    assert (first.status, second.status) == ("finished", "finished"), (first.error, second.error)
    assert len(first.rounds) == 3
    assert sum(struck.values()) >= NUM_KILLS
    assert set(struck) >= set(VICTIMS)
    for one, other in zip(products(world.backend, first), products(world.backend, second), strict=True):
        assert one == other, one[0]
    assert [curve(view) for view in (first,)] == [curve(view) for view in (second,)]


def start(api: Api, key: str) -> str:
    with api.client() as client:
        answer = client.post("/rounds", json=REQUEST, headers={"Idempotency-Key": key})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def look(backend: Backend, rounds_id: str) -> RoundsView | None:
    """The rounds, or None while the database is away."""
    try:
        return rounds.get(backend, PROJECT, rounds_id)
    except Unavailable:
        return None


def wait_until_over(backend: Backend, rounds_id: str) -> None:
    def is_over() -> bool:
        found = look(backend, rounds_id)
        return found is not None and found.finished_at is not None

    wait_for(is_over, "the rounds", PATIENCE_SECONDS)


class Strikes:
    """Kills one victim after the other, each once something was recorded since the last kill of a worker."""

    def __init__(self, world: World, api: Api, rounds_id: str) -> None:
        self._world, self._api, self._rounds_id = world, api, rounds_id
        self._rng = random.Random(NUM_KILLS)
        self._counts: Counter[str] = Counter()
        self._num_workers = 0
        self._worker = self._start_worker()

    def until_over(self) -> Counter[str]:
        for place in range(10 * NUM_KILLS):
            if not self._wait_for_progress():
                break
            if sum(self._counts.values()) < self._num_allowed():
                self._strike(VICTIMS[place % len(VICTIMS)])
        if not self._worker.is_running:
            self._worker = self._world.start()
        wait_until_over(self._world.backend, self._rounds_id)
        return self._counts

    def _num_allowed(self) -> int:
        """A third of the kills in each round."""
        found = look(self._world.backend, self._rounds_id)
        number = 1 if found is None else max(step.round for step in found.steps)
        return math.ceil(NUM_KILLS * number / REQUEST["num_rounds"])

    def _start_worker(self) -> Any:
        """A worker that also dies at one of the points of rounds, another one each time."""
        point = POINTS[self._num_workers % len(POINTS)]
        self._num_workers += 1
        return self._world.start(strike=f"{point}=kill@2")

    def _strike(self, victim: str) -> None:
        time.sleep(self._rng.uniform(0.0, 0.7))
        if victim == "program":
            pids = self._world.trainers()
            if not pids:
                return
            os.kill(self._rng.choice(pids), signal.SIGKILL)
        elif victim == "database":
            server = self._world.grounds.postgresql
            server.stop("immediate")
            server.start()
        elif victim == "api":
            self._api.send(signal.SIGKILL)
            self._api.replace_dead()
        else:
            self._worker.kill()
            self._worker = self._start_worker()
        self._counts[victim] += 1

    def _wait_for_progress(self) -> bool:
        """Wait until more is recorded than now; False once the rounds have ended."""
        before = self._recorded()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = look(self._world.backend, self._rounds_id)
            if found is not None and found.finished_at is not None:
                return False
            if not self._worker.is_running:
                self._counts["worker"] += self._worker.code == -signal.SIGKILL
                self._worker = self._start_worker()
            if self._recorded() != before:
                return True
            time.sleep(0.1)
        raise AssertionError(
            f"nothing has happened for {PATIENCE_SECONDS} s: {look(self._world.backend, self._rounds_id)}"
        )

    def _recorded(self) -> tuple[Any, ...] | None:
        found = look(self._world.backend, self._rounds_id)
        if found is None:
            return None
        counts = [select(func.count()).select_from(table) for table in (GenerationPart, Checkpoint)]
        try:
            rows = [self._world.backend.database.read(lambda session, s=s: session.scalar(s)) for s in counts]
        except Unavailable:
            return None
        return tuple(step.status for step in found.steps), *rows


def products(backend: Backend, view: RoundsView) -> Iterator[tuple[str, Any]]:
    """Yield what every stage has made, with stages in place of ids."""
    names = {step.child_id: f"<{step.stage} {step.round}>" for step in view.steps}
    for step in view.steps:
        name = names[step.child_id]
        if step.kind == "job":
            yield name, weights_sha256_of(backend, step.child_id)
        elif step.kind == "judgement":
            judged = judgements.get(backend, PROJECT, step.child_id)
            yield name, (judged.win_rate, judged.num_ties, judged.num_pairs)
            yield f"pairs of {name}", content(backend, judged.dataset_id, names)
        elif step.result.get("dataset_id"):
            yield name, content(backend, step.result["dataset_id"], names)
        if "train_dataset_id" in step.result:
            yield "the rest", content(backend, step.result["train_dataset_id"], names)


def content(backend: Backend, dataset_id: str | None, names: dict[str, str]) -> str | None:
    if dataset_id is None:
        return None
    text = b"".join(contents.original(backend, PROJECT, dataset_id).chunks).decode()
    for child_id, name in names.items():
        text = text.replace(child_id, name)
    return text


def curve(view: RoundsView) -> list[Any]:
    return [(one.num_pairs, one.win_rate, one.win_rate_first, one.drift) for one in view.rounds]
