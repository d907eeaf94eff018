"""Faults of jobs on two nodes between two network namespaces: what strikes them, in rows of the table of faults."""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Literal, get_args

from backends import PROJECT
from faults.grounds import Grounds
from faults.outcome import Outcome, Row
from faults.trainers import Trainer
from faults.zombies import late_writes
from nodes.hosts import Host, find_lack
from nodes.run import SCRIPT, Run
from nodes.world import NODES, send

from core.clock import utc_now
from core.domain.errors import Conflict
from core.domain.jobs.job_state import JobStatus
from core.services.jobs import steering

KILLS_A_JOB, PARTITIONS_A_JOB, SLOW_LINKS_A_JOB, ZOMBIES_A_JOB = 6, 3, 2, 4
PAUSES_A_RUN = CANCELS_A_RUN = 2
NUM_PARALLEL = 2
"""Pairs of hosts at once: most of the time of a run is waiting."""
Partition = Literal["cut off", "unwired", "offline", "deaf", "refusing", "mute"]
"""Both ways: a host from everything, the hosts from each other, a host from database, broker and store. One way: what a
host sends to the other one is lost or refused, what it sends to the servers is lost."""
RATES = ("128kbit", "512kbit", "2mbit")
FROZEN = ("worker", "rank", "worker", "agent")


def kills(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Kill any process of either host, again and again."""
    run = Run(grounds, seed, trainer)
    job_id = run.world.submit(SCRIPT)
    while run.count < KILLS_A_JOB and (attempt := run.await_moment(job_id)) is not None:
        host, part, pid = run.chance.choice(run.world.parts())
        since = utc_now()
        if not run.world.kill(host, part, pid):
            continue
        run.count += 1
        run.notes["victims"].append(part)
        run.await_next(job_id, attempt, since, f"the end of a {part}")
    return run.end()


def partitions(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Part the hosts from each other or from the servers, for a moment, or until the attempt has ended."""
    run = Run(grounds, seed, trainer)
    job_id = run.world.submit(SCRIPT)
    kinds: tuple[Partition, ...] = get_args(Partition)
    while run.count < PARTITIONS_A_JOB and (attempt := run.await_moment(job_id)) is not None:
        kind = kinds[(PARTITIONS_A_JOB * seed + run.count) % len(kinds)]
        one, other = run.chance.sample(run.world.hosts, 2)
        is_long = run.chance.random() < 0.7
        since = utc_now()
        with partition(kind, one, other):
            if is_long:
                run.await_end(job_id, attempt, since, f"a partition ({kind})")
            time.sleep(run.chance.uniform(0.2, 2.0))
        run.count += 1
        run.notes["kinds"].append(f"{kind}, {'long' if is_long else 'short'}")
        run.await_going_on(job_id, attempt, utc_now(), f"a partition ({kind})")
    return run.end()


def partition(kind: Partition, one: Host, other: Host) -> AbstractContextManager[None]:
    match kind:
        case "cut off":
            return one.cut_off()
        case "unwired":
            return one.unwired()
        case "offline":
            return one.offline()
        case "deaf":
            return one.deaf_to(other)
        case "refusing":
            return one.deaf_to(other, "prohibit")
        case "mute":
            return one.mute()


def slow_links(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Let what one host sends, or both, to the other or to the servers, go slowly for some seconds."""
    run = Run(grounds, seed, trainer)
    job_id = run.world.submit(SCRIPT)
    while run.count < SLOW_LINKS_A_JOB and (attempt := run.await_moment(job_id)) is not None:
        is_uplink, rate = (seed + run.count) % 2 == 1, run.chance.choice(RATES)
        with ExitStack() as stack:
            for host in run.chance.sample(run.world.hosts, run.chance.randint(1, 2)):
                stack.enter_context(host.slow(rate, is_uplink=is_uplink))
            time.sleep(run.chance.uniform(3.0, 10.0))
        run.count += 1
        run.notes["kinds"].append(f"{'uplink' if is_uplink else 'wire'} {rate}")
        run.await_going_on(job_id, attempt, utc_now(), f"a slow link ({rate})")
    return run.end()


def zombies(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Freeze a worker, an agent or a rank past the lease, and wake it."""
    run = Run(grounds, seed, trainer)
    job_id = run.world.submit(SCRIPT)
    while run.count < ZOMBIES_A_JOB and (attempt := run.await_moment(job_id)) is not None:
        wanted = FROZEN[(seed + run.count) % len(FROZEN)]
        found = [(host, pid) for host, part, pid in run.world.parts() if part == wanted]
        if not found:  # so early that there is none yet
            continue
        host, pid = run.chance.choice(found)
        if wanted == "worker":
            freeze_worker(run, job_id, attempt, host)
        elif not freeze_trainer(run, job_id, attempt, pid, wanted):
            continue
        run.count += 1
        run.notes["frozen"].append(wanted)
    return run.end()


def freeze_worker(run: Run, job_id: str, attempt: int, host: Host) -> None:
    """With its trainers or without; another one takes its place, and it is woken at a random moment after that."""
    world, zombie = run.world, run.world.workers[host.number]
    name = world.logs[world.processes.index(zombie)].stem
    children = [pid for where, part, pid in world.parts() if part != "worker" and where == host]
    frozen = [zombie.pid, *(children if run.chance.random() < 0.5 else ())]
    since = utc_now()
    frozen = [pid for pid in frozen if run.freeze(pid)]
    world.start_on(host)
    run.await_next(job_id, attempt, since, "a worker was frozen")
    time.sleep(run.chance.uniform(0.0, 2.0))
    woken_at = utc_now()
    for pid in frozen:
        send(pid, signal.SIGCONT)
    run.await_gone(host, f"{job_id}-a{attempt}", woken_at)
    zombie.send(signal.SIGTERM)
    zombie.wait()
    run.violations += late_writes(world, job_id, [name])


def freeze_trainer(run: Run, job_id: str, attempt: int, pid: int, part: str) -> bool:
    """Wake it after the lease; False where it was gone. Of an agent the other node hears nothing meanwhile."""
    if not run.freeze(pid):
        return False
    time.sleep(run.world.trainer.times["lease_seconds"] + run.chance.uniform(0.5, 2.0))
    woken_at = utc_now()
    send(pid, signal.SIGCONT)
    run.await_going_on(job_id, attempt, woken_at, f"one {part} was frozen")
    return True


def stops(grounds: Grounds, seed: int, trainer: Trainer) -> Outcome:
    """Pause a job and let it go on; cancel others."""
    run = Run(grounds, seed, trainer)
    job_id = run.world.submit(SCRIPT)
    while run.count < PAUSES_A_RUN and (attempt := run.await_moment(job_id)) is not None:
        since = utc_now()
        try:
            steering.pause(run.world.backend, PROJECT, job_id)
        except Conflict:  # it has just ended
            break
        if not run.await_status(job_id, JobStatus.PAUSED, since):
            break
        run.count += 1
        run.notes["kinds"].append("pause")
        since = utc_now()
        steering.resume(run.world.backend, PROJECT, job_id)
        run.await_next(job_id, attempt, since, "a pause")
    run.world.wait_for_all("succeeded", seconds=120)
    for _ in range(CANCELS_A_RUN):
        cancel(run)
    return run.end()


def cancel(run: Run) -> None:
    job_id = run.world.submit(SCRIPT, must_succeed=False)
    if run.await_moment(job_id) is None:
        return
    since = utc_now()
    try:
        steering.cancel(run.world.backend, PROJECT, job_id)
    except Conflict:
        return
    if run.await_status(job_id, JobStatus.CANCELLED, since):
        run.count += 1
        run.notes["kinds"].append("cancel")


def _row(name: str, unit: str, goal: int, run: Callable[[Grounds, int, Trainer], Outcome]) -> Row:
    return Row(name, unit, goal, run, num_parallel=NUM_PARALLEL, trainer=NODES, find_lack=find_lack)


NODE_ROWS = (
    _row("nodes-kills", "kill -9", 100, kills),
    _row("nodes-partitions", "partition", 30, partitions),
    _row("nodes-slow-links", "slow link", 10, slow_links),
    _row("nodes-zombies", "frozen process", 20, zombies),
    _row("nodes-stops", "pause or cancel", 20, stops),
)
