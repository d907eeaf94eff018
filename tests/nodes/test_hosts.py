"""Jobs on two nodes between two network namespaces, with PostgreSQL, Redis and S3 in a third: `make test-nodes`.

Hundreds of faults upon them are rows of the table of faults (`nodes.strikes`), of which a run each is made here.
"""

from collections.abc import Iterator

import pytest
from backends import PROJECT
from faults.grounds import Grounds
from faults.share import run_share
from nodes.hosts import find_lack
from nodes.run import SCRIPT
from nodes.strikes import NODE_ROWS
from nodes.world import NODES, NodesWorld
from toy_jobs import events, messages, points, wait_for, wait_for_status

from core.services.jobs import steering

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    if lack := find_lack():
        pytest.skip(lack)
    with Grounds.open() as opened:
        yield opened


@pytest.fixture
def world(grounds: Grounds) -> Iterator[NodesWorld]:
    """Its workers are started anew, not forked."""
    made = NodesWorld(grounds, NODES, is_forked=False)
    for host in made.hosts:
        made.start_on(host, is_slow=False)
    yield made
    made.close()


def test_two_hosts_give_the_curve_of_one_process(world: NodesWorld) -> None:
    both, alone = world.submit(SCRIPT), world.submit(SCRIPT, nodes=1)
    for job_id in (both, alone):
        ended = wait_for_status(world.backend, job_id, "succeeded", "failed", seconds=400)
        assert ended.status.value == "succeeded", messages(world.backend, job_id)
    expected, found = points(world.backend, alone), points(world.backend, both)
    assert [(one.stage, one.split, one.step) for one in expected] == [(one.stage, one.split, one.step) for one in found]
    for one, other in zip(expected, found, strict=True):
        assert other.values["loss"] == pytest.approx(one.values["loss"], rel=1e-5, abs=1e-5)
    (started,) = [event for event in events(world.backend, both) if event.kind == "started"]
    assert len(started.data["nodes"]) == 2


def test_a_closed_port_is_named(world: NodesWorld) -> None:
    one, other = world.hosts
    with one.deaf_to(other, "prohibit"):
        job_id = world.submit(SCRIPT)
        wait_for(lambda: "requeued" in [event.kind for event in events(world.backend, job_id)], "the end of it", 90)
        (told,) = [event.message for event in events(world.backend, job_id) if event.kind == "requeued"][:1]
        assert other.address in told
        assert "cannot connect to node" in told
        assert "open in their private network" in told
        steering.cancel(world.backend, PROJECT, job_id)
        wait_for_status(world.backend, job_id, "cancelled")


@pytest.mark.parametrize("row", [row.name for row in NODE_ROWS])
def test_what_strikes_a_job_changes_nothing(row: str, grounds: Grounds) -> None:
    run_share(grounds, row, (0,), at_least=2)
