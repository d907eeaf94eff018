"""The API killed at its failpoints, with a client that sends its request again until it is answered."""

import time
from pathlib import Path
from typing import Any

import httpx
from faults.checker import all_jobs
from faults.grounds import Grounds
from faults.outcome import Outcome, Row
from faults.trainers import Trainer
from faults.world import COMBINATIONS, Api, Options, World
from sqlalchemy import text
from toy_trainer import Script

POINTS = (
    "change.in_transaction",
    "delete.in_transaction",
    "request.created",
    "request.reserved",
    "retry.in_transaction",
    "submit.committed",
    "submit.in_transaction",
)
SCRIPT = Script(steps=2)
SETTINGS = [(number, point) for point in POINTS for number in range(2)]


def killed_api(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    number, point = SETTINGS[seed]
    world = World(grounds, Options(*COMBINATIONS[number], trainer))
    user = _User(world, point)
    seed_job = world.submit(SCRIPT, must_succeed=False)
    user.ask("POST", f"/jobs/{seed_job}/cancel")
    job_id = user.create("/jobs", "one", json=world.request(SCRIPT))
    user.ask("POST", f"/jobs/{job_id}/pause")
    user.ask("POST", f"/jobs/{job_id}/resume")
    user.ask("POST", f"/jobs/{job_id}/cancel")
    retried = user.create(f"/jobs/{job_id}/retry", "two")
    user.ask("DELETE", f"/jobs/{job_id}")
    world.ledger.deleted.add(job_id)
    user.api.send(15)
    violations = [] if user.mark.exists() else [f"{point} was not reached"]
    expected = {seed_job, retried}
    if (found := {job.id for job in all_jobs(world.backend)}) != expected:
        violations.append(f"jobs {sorted(found)} instead of {sorted(expected)}")
    if world.status(retried) != "queued":
        violations.append(f"the retried job is {world.status(retried)}")
    return Outcome(seed, f"{COMBINATIONS[number][0]} {point}", 1, violations + world.finish())


class _User:
    def __init__(self, world: World, point: str) -> None:
        self.world = world
        self.mark: Path = world.folder / "has-struck"
        self.api: Api = world.start_api(strike=f"{point}=kill:{self.mark}")  # the first to pass it, only
        self.api.wait_until_up()

    def create(self, path: str, key: str, **body: Any) -> str:
        answer = self.ask("POST", path, headers={"Idempotency-Key": key}, **body)
        job_id = str(answer.json()["id"])
        again = self.ask("POST", path, headers={"Idempotency-Key": key}, **body)
        assert again.json()["id"] == job_id, "the key made two jobs"
        self.world.promise(job_id, SCRIPT, must_succeed=False)
        return job_id

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        for _ in range(100):
            try:
                with self.api.client() as client:
                    answer = client.request(method, path, **options)
            except httpx.TransportError:
                self.api.replace_dead()
                continue
            if answer.status_code == 409 and answer.json()["code"] == "idempotency-key-in-use":
                self._end_reservations()
                continue
            if method == "DELETE" and answer.status_code == 404 and self.mark.exists():
                return answer  # it was done before the answer was lost
            assert answer.status_code < 300, answer.text
            return answer
        raise AssertionError(f"{method} {path} is never answered")

    def _end_reservations(self) -> None:
        """A minute later."""
        time.sleep(0.05)
        statement = text("UPDATE idempotency_keys SET lease_expires_at = created_at WHERE lease_token IS NOT NULL")
        self.world.backend.database.write(lambda session: session.execute(statement))


REQUESTS = Row("requests", "point", len(SETTINGS), killed_api, num_settings=len(SETTINGS), num_parallel=2)
