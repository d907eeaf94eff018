"""Celery application of senders of wake-ups and of workers; every setting has its reason.

A message carries no authority: it may be lost, doubled or forged without harm, because workers claim by SQL.
"""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from celery import Celery

from core.queue import file_broker
from core.settings import Settings, SettingsError

QUEUE = "train"
WAKE_TASK = "train.wake"

_REDIS_OPTIONS = {
    "visibility_timeout": 3600,  # of no meaning with early acknowledgement; on a shared Redis the shortest one wins
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "retry_on_timeout": True,
    "health_check_interval": 25,
    "global_keyprefix": "preftune:",
}

_CONFIGURATION = {
    "broker_connection_timeout": 2.0,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # the default of 100 would end a worker whose Redis is away for long
    "broker_pool_limit": 10,
    # THE decision: messages are acknowledged when taken, because the lease in the database is what survives a crash.
    # Late acknowledgement makes Redis deliver a job of hours twice.
    "task_acks_late": False,
    "task_reject_on_worker_lost": False,
    "task_ignore_result": True,
    "result_backend": None,
    "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "task_create_missing_queues": False,
    "task_default_queue": QUEUE,
    "task_time_limit": None,  # max_runtime_seconds is enforced from the job's row
    "task_soft_time_limit": None,
    # Threads: with forked children SIGTERM either waits for hours or raises SystemExit at any bytecode.
    "worker_pool": "threads",
    "worker_concurrency": 1,
    "worker_prefetch_multiplier": 1,
    "worker_enable_remote_control": False,  # cancelling is a column of the job; nothing to revoke, nothing to attack
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_soft_shutdown_timeout": 0.0,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "enable_utc": True,
    "timezone": "UTC",
}


def make_celery(settings: Settings) -> Celery:
    """Make the application; raises SettingsError for an unknown broker (`none` has no application)."""
    url = settings.effective_broker_url
    app = Celery("preftune", set_as_current=False)
    app.conf.update(_CONFIGURATION)
    app.conf.update(_broker(url, settings.data_dir / "broker"))
    return app


def _verified(url: str) -> str:
    """Return a `rediss` URL that checks the server's certificate by default: kombu's default checks nothing."""
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query, keep_blank_values=True):
        return url
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))))


def _broker(url: str, directory: Path) -> dict[str, Any]:
    if url == "files":
        file_broker.register()
        return {
            "broker_url": f"{file_broker.SCHEME}://localhost/",
            "broker_transport_options": file_broker.prepare(directory),
        }
    if url.startswith(("redis://", "rediss://")):
        url = _verified(url)
        # A busy worker takes no message that an idle one could have.
        return {"broker_url": url, "broker_transport_options": _REDIS_OPTIONS, "worker_disable_prefetch": True}
    raise SettingsError("PREFTUNE_BROKER_URL: must be redis://…, files or none")
