"""The outbox of webhooks: what moved is told at least once, what did not is not, and each job's events keep order."""

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from backends import PROJECT, add_dataset, claim, publication, submit
from receiver import Receiver, receive

from core.database.columns import database_after
from core.database.tables.webhooks import WebhookDelivery, WebhookEndpoint
from core.domain.errors import InvalidRequest
from core.domain.webhook_events import EVENT_TYPES, signature
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.jobs import events, steering
from core.services.webhooks import delivery, endpoints
from core.services.webhooks.delivery import WebhookDeliverer
from core.settings import Settings

ALL = list(EVENT_TYPES.values())


def opened(backend: Backend) -> Backend:
    """The same service, which lets webhooks go to this machine."""
    add_dataset(backend)
    settings = Settings(**backend.settings.model_dump() | {"webhook_allowed_hosts": "127.0.0.1"})
    return replace(backend, settings=settings)


def listening(backend: Backend, receiver: Receiver, types: list[str] = ALL) -> str:
    return endpoints.create(backend, PROJECT, url=receiver.url, event_types=types).endpoint.id


def deliver_all(backend: Backend, num_passes: int = 200) -> None:
    """Until nothing is due, by two deliverers in turn that wait between tries for no time."""
    deliverers = [WebhookDeliverer(backend, delay=lambda _: 0.0) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        for number in range(num_passes):
            if not deliverers[number % 2].deliver_due(pool):
                return
    raise AssertionError("there is always something due")


def test_every_transition_is_told_once_it_is_committed(backend: Backend) -> None:
    backend = opened(backend)
    with receive() as receiver:
        listening(backend, receiver)
        first, second = submit(backend), submit(backend)
        steering.pause(backend, PROJECT, second.id)
        held = claim(backend)
        assert held.job_id == first.id
        lifecycle.begin(held)
        lifecycle.finish_succeeded(held, publication(backend, held))
        steering.cancel(backend, PROJECT, second.id)
        with pytest.raises(Exception, match="The job is"):
            steering.pause(backend, PROJECT, second.id)
        deliver_all(backend)
        told = sorted((event["type"].rpartition(".")[2], event["data"]["id"]) for event in receiver.taken())
        assert told == sorted([("paused", second.id), ("succeeded", first.id), ("cancelled", second.id)])
        assert {arrived.headers["webhook-id"] for arrived in receiver.arrived} == {
            event["id"] for event in receiver.taken()
        }


def test_a_receiver_that_fails_half_the_time_gets_all_in_the_order_of_each_job(backend: Backend) -> None:
    backend = opened(backend)
    num_seen: Counter[str] = Counter()

    def answer(event: dict[str, Any]) -> int:
        num_seen[event["id"]] += 1
        return (503, 200, 302, 200)[(int(event["id"][-1], 16) + num_seen[event["id"]]) % 4]

    with receive() as receiver:
        receiver.answer = answer
        listening(backend, receiver)
        jobs = [submit(backend) for _ in range(12)]
        for job in jobs:
            steering.pause(backend, PROJECT, job.id)
            steering.cancel(backend, PROJECT, job.id)
        # Otherwise the endpoint rests for a while after ten failures in a row.
        delivery_pause = delivery.PAUSE_AFTER_FAILURES
        delivery.PAUSE_AFTER_FAILURES = 10**6
        try:
            deliver_all(backend)
        finally:
            delivery.PAUSE_AFTER_FAILURES = delivery_pause
        order = defaultdict(list)
        for event in receiver.taken():
            order[event["data"]["id"]].append(event["type"])
        assert dict(order) == {job.id: ["fine_tuning.job.paused", "fine_tuning.job.cancelled"] for job in jobs}


def test_what_a_dead_process_held_goes_out_when_its_lease_is_over(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(backend)
    with receive() as receiver:
        listening(backend, receiver)
        steering.cancel(backend, PROJECT, submit(backend).id)
        dead = WebhookDeliverer(backend)
        with ThreadPoolExecutor(1) as pool:
            pool.submit = lambda *_: None  # type: ignore[assignment,method-assign,misc]
            assert len(dead._begin(pool)) == 1
        deliver_all(backend)
        assert receiver.taken() == []
        backend.database.write(expire_leases)
        deliver_all(backend)
        assert len(receiver.taken()) == 1


def test_an_event_that_only_one_receiver_cannot_take_does_not_disable_it(backend: Backend) -> None:
    backend = opened(backend)
    with receive() as receiver:
        poison = submit(backend).id
        receiver.answer = lambda event: 500 if event["data"]["id"] == poison else 200
        endpoint_id = listening(backend, receiver)
        steering.cancel(backend, PROJECT, poison)

        backend.database.write(age)
        steering.cancel(backend, PROJECT, submit(backend).id)
        with ThreadPoolExecutor(1) as pool:
            deliverer = WebhookDeliverer(backend, delay=lambda _: 0.0)
            while deliverer.deliver_due(pool):
                pass
        states = {
            item.job_id == poison: item.status for item in endpoints.list_deliveries(backend, PROJECT, endpoint_id).data
        }
        assert states == {True: "given_up", False: "delivered"}


def age(session: Any) -> None:
    """Let all that is there be a day older."""
    for row in session.query(WebhookDelivery):
        row.created_at = database_after(-25 * 3600.0)
    for row in session.query(WebhookEndpoint):
        row.updated_at = database_after(-25 * 3600.0)


def test_two_processes_share_what_is_due(backend: Backend) -> None:
    backend = opened(backend)
    with receive() as receiver:
        listening(backend, receiver)
        jobs = [submit(backend).id for _ in range(20)]
        for job_id in jobs:
            steering.cancel(backend, PROJECT, job_id)
        deliverers = [WebhookDeliverer(backend) for _ in range(2)]
        for each in deliverers:
            each.start()
        receiver.wait_for(lambda arrived: len(arrived) >= len(jobs))
        for each in deliverers:
            each.stop()
        assert sorted(event["data"]["id"] for event in receiver.taken()) == sorted(jobs)


def expire_leases(session: Any) -> None:
    for row in session.query(WebhookDelivery):
        row.lease_expires_at = database_after(-1)


def test_an_endpoint_that_takes_nothing_for_a_day_is_disabled_and_the_job_says_so(backend: Backend) -> None:
    backend = opened(backend)
    with receive() as receiver:
        receiver.answer = lambda event: 500
        endpoint_id = listening(backend, receiver, ["fine_tuning.job.cancelled"])
        job = submit(backend)
        steering.cancel(backend, PROJECT, job.id)
        with ThreadPoolExecutor(1) as pool:
            WebhookDeliverer(backend, delay=lambda _: 0.0).deliver_due(pool)
        shown = endpoints.list_deliveries(backend, PROJECT, endpoint_id).data[0]
        assert (shown.status, shown.num_tries, shown.last_status) == ("pending", 1, 500)

        backend.database.write(age)
        with ThreadPoolExecutor(1) as pool:
            WebhookDeliverer(backend, delay=lambda _: 0.0).deliver_due(pool)
        assert endpoints.list_deliveries(backend, PROJECT, endpoint_id).data[0].status == "given_up"
        view = endpoints.get(backend, PROJECT, endpoint_id)
        assert not view.is_enabled
        assert "500" in str(view.disabled_reason)
        assert events.list_events(backend, PROJECT, job.id)[-1].kind == "webhook_disabled"
        steering.cancel(backend, PROJECT, submit(backend).id)
        receiver.answer = lambda event: 200
        deliver_all(backend)
        assert receiver.taken() == []
        assert endpoints.patch(backend, PROJECT, endpoint_id, {"is_enabled": True}).is_enabled
        deliver_all(backend)
        assert len(receiver.taken()) == 1
        endpoints.patch(backend, PROJECT, endpoint_id, {"is_enabled": False})
        steering.cancel(backend, PROJECT, submit(backend).id)
        assert len(endpoints.list_deliveries(backend, PROJECT, endpoint_id).data) == 2


def test_failures_in_a_row_let_the_endpoint_rest_and_others_go_on(backend: Backend) -> None:
    backend = opened(backend)
    with receive() as bad, receive() as good:
        bad.answer = lambda event: 500
        resting = listening(backend, bad)
        listening(backend, good)
        for _ in range(14):
            steering.cancel(backend, PROJECT, submit(backend).id)
        deliverer = WebhookDeliverer(backend, delay=lambda number: 3600.0)
        with ThreadPoolExecutor(8) as pool:
            while deliverer.deliver_due(pool):
                pass
        assert len(good.taken()) == 14
        assert delivery.PAUSE_AFTER_FAILURES <= len(bad.arrived) < 14

        def paused(session: Any) -> Any:
            return session.get(WebhookEndpoint, resting).paused_until

        assert backend.database.read(paused) is not None


def test_secrets_are_not_in_the_database_and_both_sign_while_one_is_rotated(backend: Backend) -> None:
    backend = opened(backend)
    with receive() as receiver:
        made = endpoints.create(backend, PROJECT, url=receiver.url, event_types=ALL)
        rotated = endpoints.rotate(backend, PROJECT, made.endpoint.id, keeps_previous=True)
        assert made.secret != rotated.secret
        assert delivery.ping(backend, PROJECT, made.endpoint.id, ALL[0]).is_delivered
        last = receiver.arrived[-1]
        at = int(last.headers["webhook-timestamp"])
        for secret in (made.secret, rotated.secret):
            expected = signature([secret], last.headers["webhook-id"], at, last.body)
            assert expected in last.headers["webhook-signature"].split(" ")
        endpoints.rotate(backend, PROJECT, made.endpoint.id, keeps_previous=False)
        assert delivery.ping(backend, PROJECT, made.endpoint.id, ALL[0]).is_delivered
        assert len(receiver.arrived[-1].headers["webhook-signature"].split(" ")) == 1
        endpoints.rotate(backend, PROJECT, made.endpoint.id, keeps_previous=True)
        endpoints.rotate(backend, PROJECT, made.endpoint.id, keeps_previous=True)
        assert delivery.ping(backend, PROJECT, made.endpoint.id, ALL[0]).is_delivered
        signed = receiver.arrived[-1].headers["webhook-signature"].split(" ")
        assert len(signed) == 3  # a repeated rotation keeps the secret that receivers have, but none that was ended
        stored = backend.database.read(
            lambda session: [
                str({column.name: getattr(row, column.key) for column in row.__table__.columns})
                for row in session.query(WebhookEndpoint)
            ]
        )
        assert all(secret[6:20] not in "".join(stored) for secret in (made.secret, rotated.secret))


def test_redirects_are_not_followed_and_private_addresses_not_tried(backend: Backend) -> None:
    with receive() as receiver:
        receiver.answer = lambda event: 307
        open_backend = opened(backend)
        endpoint_id = listening(open_backend, receiver)
        outcome = delivery.ping(open_backend, PROJECT, endpoint_id, ALL[0])
        assert (outcome.status, outcome.is_delivered, len(receiver.arrived)) == (307, False, 1)
        refused = delivery.ping(backend, PROJECT, endpoint_id, ALL[0])
        assert refused.status is None
        assert "not a public address" in str(refused.error)
        assert len(receiver.arrived) == 1
        with pytest.raises(InvalidRequest, match="not a public address"):
            endpoints.create(backend, PROJECT, url=receiver.url, event_types=ALL)
    with pytest.raises(InvalidRequest, match="not an event"):
        endpoints.create(backend, PROJECT, url="https://example.com/", event_types=["batch.completed"])
