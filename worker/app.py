"""The worker process: a Celery worker that is woken, a polling thread, one attempt at a time."""

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any

from celery.apps.worker import Worker as CeleryWorker
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging
from celery.worker import state as celery_state

from core import confinement, private_memory
from core.domain.errors import Unavailable
from core.queue.celery_app import QUEUE, make_celery
from core.services.backend import Backend, open_backend
from core.services.operations import schema
from core.services.operations.sweep import Sweeper
from core.settings import PRIVATE_UMASK, Settings, SettingsError
from core.telemetry import tracing
from core.telemetry.logging import configure_logging
from worker import tasks
from worker.attempt.records.tracking import targets_of
from worker.attempt.runner import Runner
from worker.attempt.trainer_process import LaunchPlan
from worker.attempt.workplace import Workplace
from worker.device import CPU, choose_devices, count_threads
from worker.drain import Drain
from worker.light.exports import EXPORTS
from worker.light.generations import generations_on
from worker.light.judging import JUDGEMENTS
from worker.light.lane import QUIET_POLL_SECONDS, LightLane, RequestKind
from worker.light.republishing import REPUBLICATIONS
from worker.light.scores import SCORES
from worker.network import network_of
from worker.presence import device_class, presence_of
from worker.processes.start import command_of
from worker.pulse import LaneBeat, Liveness
from worker.scratch import WorkerScratch

TRAINER_COMMAND = command_of("trainer")
GROUP_COMMAND = command_of("device_group")

_TICK_SECONDS = 0.1

_log = logging.getLogger(__name__)


class _ListeningWorker(CeleryWorker):
    def install_platform_tweaks(self, worker: Any) -> None:
        """Keep our own handlers: Celery's restart on SIGHUP, and end tasks on a second SIGINT."""


def run(
    settings: Settings,
    trainer_command: Sequence[str] = TRAINER_COMMAND,
    group_command: Sequence[str] = GROUP_COMMAND,
) -> int:
    """Work until SIGTERM or SIGINT; return the exit code. Raises SettingsError."""
    os.umask(PRIVATE_UMASK)
    configure_logging(settings)
    private_memory.forbid_reading()
    confinement.start(is_wanted=settings.confine_children)
    tracing.start(settings, "preftune-worker")
    drain = _drain_on_signals(settings.stop_grace_seconds)
    targets = targets_of(settings)
    does_train = settings.worker_lanes != "light"
    device = choose_devices(settings.device, settings.num_devices) if does_train else CPU
    backend = open_backend(settings)
    _require_schema(backend)
    scratch = WorkerScratch(settings.scratch_dir)
    num_threads = count_threads(settings.num_threads)
    launch = LaunchPlan(command=trainer_command, num_threads=num_threads, group_command=group_command)
    place = Workplace(
        backend=backend,
        launch=launch,
        device=device.name,
        drain=drain,
        targets=targets,
        num_devices=device.count,
        network=network_of(settings) if does_train else None,
        device_class=device_class(device, launch.num_threads),
    )
    presence = presence_of(backend, device, place.device_class)
    _log.info("worker %s starts, on %s", settings.effective_worker_name, device.label)
    presence.start()
    try:
        return _work(place, Runner(place, device, scratch), scratch)
    finally:
        presence.stop()
        scratch.close()
        backend.close()
        _log.info("worker %s ends", settings.effective_worker_name)


def _work(place: Workplace, runner: Runner, scratch: WorkerScratch) -> int:
    """Run the lanes that the settings name until the drain; return the exit code."""
    backend, drain, settings = place.backend, place.drain, place.backend.settings
    lanes: list[threading.Thread | LightLane] = []
    beats: list[LaneBeat] = []
    if settings.worker_lanes != "light":
        lanes.append(threading.Thread(target=runner.poll, name="poller"))
        beats.append(place.beat)
        quiet_kinds: dict[str, RequestKind[Any]] = {
            "generations": generations_on(place.device, runner.slot),
            "judgements": JUDGEMENTS,
        }
        for name, kind in quiet_kinds.items():
            quiet = LightLane(
                backend,
                drain,
                scratch,
                place.launch.num_threads,
                (kind,),
                name=name,
                poll_seconds=QUIET_POLL_SECONDS,
            )
            lanes.append(quiet)
            beats.append(quiet.beat)
    if settings.worker_lanes != "training":
        light = LightLane(backend, drain, scratch, place.launch.num_threads, (SCORES, EXPORTS, REPUBLICATIONS))
        lanes.append(light)
        beats.append(light.beat)
    sweeper = Sweeper(backend)
    with Liveness(settings.pulse_path, beats):
        for part in (sweeper, *lanes):
            part.start()
        _log.info("worker %s is up, lanes: %s", settings.effective_worker_name, settings.worker_lanes)
        try:
            return _wait(drain) if settings.worker_lanes == "light" else _listen(settings, runner, drain)
        finally:
            drain.begin()
            for lane in lanes:
                lane.join()
            sweeper.stop()


def _drain_on_signals(grace_seconds: float) -> Drain:
    """Drain on SIGTERM, SIGINT or SIGHUP; a second SIGINT ends at once, with the trainer."""
    drain = Drain(grace_seconds)

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT and drain.is_begun:
            os._exit(130)
        drain.begin()
        celery_state.should_stop = 0  # type: ignore[assignment]  # its own handlers do the same

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle)
    return drain


def _require_schema(backend: Backend) -> None:
    try:
        if not schema.is_usable(backend):
            raise SettingsError("The database's schema is not of this version; run `preftune migrate` first.")
    except Unavailable as error:
        _log.warning("%s The worker starts all the same, and asks again.", error.detail)


def _listen(settings: Settings, runner: Runner, drain: Drain) -> int:
    if settings.effective_broker_url == "none":
        return _wait(drain)
    # Its reason to warn of running as root is pickle, which is not accepted here.
    warnings.simplefilter("ignore", SecurityWarning)
    app = make_celery(settings)
    tasks.register(app, runner.run_queued)
    setup_logging.connect(_keep_our_logging, weak=False)
    worker = _ListeningWorker(
        app=app,
        hostname=f"preftune@{settings.effective_worker_name}",
        queues=[QUEUE],
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _wait(drain: Drain) -> int:
    """Wait with a timeout, so that a signal handler of this thread can begin the drain."""
    while not drain.is_begun:
        time.sleep(_TICK_SECONDS)
    return 0


def _keep_our_logging(**_: Any) -> None:
    """Listen to the signal without which Celery configures logging."""
