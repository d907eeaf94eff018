import json
import logging

import pytest
import structlog

from core.settings import Settings
from core.telemetry.logging import configure_logging, redact, redactor_of


@pytest.fixture
def _restored_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer pt_abc.DEF-123", "Authorization: Bearer ***"),
        ("key pt_0123abc_secret used", "key pt_*** used"),
        ("postgresql://u:hunter2@host/db", "postgresql://u:***@host/db"),
        ("https://s3/x?X-Amz-Signature=deadbeef&a=1", "https://s3/x?X-Amz-Signature=***&a=1"),
        ("nothing to hide: 12 pt", "nothing to hide: 12 pt"),
    ],
)
def test_secrets_are_taken_out_of_texts(text: str, shown: str) -> None:
    assert redact(None, "info", {"event": text, "inner": {"list": [text]}}) == {
        "event": shown,
        "inner": {"list": [shown]},
    }


def test_secrets_are_known_by_the_name_of_their_key() -> None:
    event = {"event": "x", "api_key": "a", "S3_SECRET": "b", "headers": {"Authorization": "c", "Accept": "d"}}
    assert redact(None, "info", event) == {
        "event": "x",
        "api_key": "***",
        "S3_SECRET": "***",
        "headers": {"Authorization": "***", "Accept": "d"},
    }


def test_what_the_process_itself_holds_is_taken_out_wherever_it_stands() -> None:
    settings = Settings(api_key="0a1b2c3d4e(f", s3_secret_access_key="another+one", database_password="short")  # type: ignore[arg-type]
    event = {"event": "GET /jobs/0a1b2c3d4e(f", "path": ["another+one", "short of pt_x"]}
    assert redactor_of(settings)(None, "info", event) == {"event": "GET /jobs/***", "path": ["***", "short of pt_***"]}
    assert redactor_of(Settings())(None, "info", {"event": "plain"}) == {"event": "plain"}


@pytest.mark.usefixtures("_restored_logging")
def test_our_lines_and_those_of_libraries_are_json_lines_alike(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json", log_level="info"))
    structlog.get_logger("ours").info("swept", job_id="job_1", password="hunter2")
    logging.getLogger("theirs").warning("connect to %s", "redis://:hunter2@host")
    structlog.get_logger("ours").debug("not shown")
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("theirs").exception("failed")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["level"], line["event"]) for line in lines] == [
        ("ours", "info", "swept"),
        ("theirs", "warning", "connect to redis://:***@host"),
        ("theirs", "error", "failed"),
    ]
    assert lines[0]["job_id"] == "job_1"
    assert "hunter2" not in str(lines)
    assert "ValueError: inside" in lines[2]["exception"]
