"""The reason for an outage is told to operators: the innermost error, in one line, without secrets."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from sqlalchemy.exc import IntegrityError, OperationalError

from core import outages
from core.database.engine import open_engine
from core.outages import MAX_CHARS, reason_of
from core.queue.celery_app import _verified
from core.telemetry.logging import clean_text, redact


def chained(inner: Exception) -> Exception:
    outer = RuntimeError("wrapped")
    outer.__cause__ = inner
    return outer


def test_the_innermost_error_is_told() -> None:
    inner = ConnectionError("WRONGPASS invalid username-password pair")
    assert reason_of(chained(chained(inner))) == "ConnectionError: WRONGPASS invalid username-password pair"
    driver = ValueError("FATAL: unsupported startup parameter: options\n")
    told = reason_of(OperationalError("SELECT 1", {}, driver))
    assert told == "ValueError: FATAL: unsupported startup parameter: options"
    answer: Any = {"Error": {"Code": "InvalidArgument", "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert reason_of(chained(ClientError(answer, "PutObject"))) == "InvalidArgument: no (HTTP 400)"


def test_reasons_hold_no_secret_and_end() -> None:
    told = reason_of(ValueError("cannot reach redis://user:canary-password@host:1\x1b[31m\nsecond line"))
    assert "canary-password" not in told
    assert "\x1b" not in told
    assert "\n" not in told
    assert len(reason_of(ValueError("x" * 10_000))) == MAX_CHARS


def test_one_line_for_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(
        outages, "_log", type("Log", (), {"warning": lambda _, event, **data: lines.append(data["reason"])})()
    )
    monkeypatch.setattr(outages, "_logged", {})
    for number in (1, 1, 2, 1):
        outages.note("store", ValueError(str(number)))
    assert lines == ["ValueError: 1", "ValueError: 2"]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("rediss://host:6380/0", "rediss://host:6380/0?ssl_cert_reqs=required"),
        (
            "rediss://host:6380/0?ssl_ca_certs=/ca.pem",
            "rediss://host:6380/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required",
        ),
        ("rediss://host:6380/0?ssl_cert_reqs=none", "rediss://host:6380/0?ssl_cert_reqs=none"),
    ],
)
def test_certificates_are_checked_unless_the_url_says_otherwise(url: str, wanted: str) -> None:
    assert _verified(url) == wanted


def test_control_characters_do_not_reach_the_console() -> None:
    event = redact(None, "", {"path": "/nope/\x1b[31mRED\r", "nested": {"a": "\x9b2J\u202e"}, "trace": "a\n\tb"})
    assert event == {"path": "/nope/\\x1b[31mRED\\r", "nested": {"a": "\\x9b2J\\u202e"}, "trace": "a\n\tb"}
    assert clean_text("\x00") == "\\x00"


def test_parameters_are_not_logged(tmp_path: Any) -> None:

    engine = open_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a TEXT NOT NULL, b TEXT)")
        with pytest.raises(IntegrityError) as caught:
            connection.exec_driver_sql("INSERT INTO t VALUES (?, ?)", (None, "canary prompt"))
    assert "canary" not in str(caught.value)
    engine.dispose()
