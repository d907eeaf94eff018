"""Votes of four clients at once while the API is killed: none is lost, none counts twice, nobody works double."""

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from deployments import COMMAND, QUICK, start
from servers import free_port
from tiny_models import make_tiny_model

NUM_CLIENTS = 4
VOTES_PER_KILL = 12
SECONDS = 1800
VERDICTS = ("left", "right", "tie", "both_bad")


class Voter:
    """A client that judges until nothing is left, and sends again whatever is not answered."""

    def __init__(self, url: str, arena_id: str, number: int, seen: Counter[str]) -> None:
        self._address = f"{url}/arenas/{arena_id}"
        self._name = f"voter {number}"
        self._has_keys = number == 0
        self._random = random.Random(number)
        self._seen = seen
        self.counted: dict[str, str] = {}
        """Votes that were acknowledged, by pair."""
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                held = self._ask("leases", {"voter": self._name, "count": 2})["data"]
                if not held:
                    return
                for pair in held:
                    self._seen[pair["id"]] += pair["id"] not in self.counted
                    verdict = VERDICTS[self._random.randrange(4)]
                    vote = self._ask("votes", {"voter": self._name, "pair_id": pair["id"], "verdict": verdict})
                    assert vote["verdict"] == verdict
                    self.counted[pair["id"]] = vote["id"]
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def _ask(self, what: str, body: dict[str, object]) -> dict[str, object]:
        key = f"{self._name} {body.get('pair_id')}".replace(" ", "-")
        headers = {"Idempotency-Key": key} if self._has_keys and what == "votes" else {}
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                answer = httpx.post(f"{self._address}/{what}", json=body, headers=headers, timeout=30)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 409 and answer.json()["code"] == "idempotency-key-in-use":
                headers = {}  # the process that held it is dead; the vote itself counts once
                continue
            assert answer.status_code in (200, 201), answer.text
            found: dict[str, object] = answer.json()
            return found
        raise TimeoutError(what)


@pytest.mark.parametrize("num_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(SECONDS + 60)
def test_no_vote_is_lost_or_doubled_under_kills(
    tmp_path: Path, record_property: Callable[[str, object], None], num_kills: int
) -> None:
    port, number = free_port(), VOTES_PER_KILL * (num_kills + 1)
    make_tiny_model(tmp_path / "models" / "tiny")
    folders = {"DATA_DIR": str(tmp_path / "data"), "MODELS_DIR": str(tmp_path / "models")}
    settings = QUICK | folders | {"PORT": str(port), "BROKER_URL": "none", "WORKER_NAME": "none"}
    url = f"http://127.0.0.1:{port}"
    delays = random.Random(3)
    with ExitStack() as stack:
        process = stack.enter_context(start("api", tmp_path, settings, [*COMMAND, "api"]))
        wait_until_live(url)
        arena_id = make_arena(url, number)
        seen: Counter[str] = Counter()
        voters = [Voter(url, arena_id, place, seen) for place in range(NUM_CLIENTS)]
        threads = [threading.Thread(target=voter.run, daemon=True) for voter in voters]
        for thread in threads:
            thread.start()
        for kill in range(num_kills):
            wait_for_votes(voters, VOTES_PER_KILL * (kill + 1))
            time.sleep(delays.uniform(0, 0.05))  # at any moment of what it does
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = stack.enter_context(start("api", tmp_path, settings, [*COMMAND, "api"]))
            wait_until_live(url)
        for thread in threads:
            thread.join(SECONDS)
        failures = [voter.failure for voter in voters if voter.failure is not None]
        assert failures == []
        counted = {pair: vote for voter in voters for pair, vote in voter.counted.items()}
        assert len(counted) == sum(len(voter.counted) for voter in voters) == number, "two voters judged one pair"
        assert set(seen.values()) == {1}, "a pair was given to two voters"
        stored = list_votes(url, arena_id)
        assert {vote["pair_id"]: vote["id"] for vote in stored} == counted
        assert len(stored) == number
        arena = httpx.get(f"{url}/arenas/{arena_id}").json()
        assert (arena["num_votes"], arena["num_decided"], arena["num_voters"]) == (number, number, NUM_CLIENTS)
    record_property("num_votes", number)
    record_property("num_kills", num_kills)


def make_arena(url: str, number: int) -> str:
    rows = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(number)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    dataset_id = httpx.post(f"{url}/datasets", content=content, timeout=120).json()["id"]
    made = httpx.post(f"{url}/arenas", json={"dataset_id": dataset_id, "num_pairs": number}, timeout=60)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def list_votes(url: str, arena_id: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = None
    while True:
        query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = httpx.get(f"{url}/arenas/{arena_id}/votes", params=query, timeout=30).json()
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def wait_for_votes(voters: list[Voter], number: int) -> None:
    deadline = time.monotonic() + SECONDS
    while sum(len(voter.counted) for voter in voters) < number:
        assert all(voter.failure is None for voter in voters), [voter.failure for voter in voters]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_live(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/health/live", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
