"""Messages of the service in the words of the command line; numbers, times and addresses as people read them."""

import httpx
import pytest
from typer.testing import CliRunner

from preftune import ApiError, Client, InvalidAddress
from preftune.cli.commands import jobs
from preftune.cli.commands.models import parameters_text
from preftune.cli.estimates import duration
from preftune.cli.main import app
from preftune.cli.words import as_options, counted, error_text, ordinal

SUMMED_UP = {
    "title": "The request is not valid",
    "detail": "/beta: must be greater than 0, not -1 (and 1 more)",
    "errors": [
        {"pointer": "/beta", "detail": "must be greater than 0, not -1"},
        {"pointer": "/dpo/epoch", "detail": "is an unknown field; did you mean `epochs`?"},
    ],
}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("To keep the good rows only, send on_error=skip.", "To keep the good rows only, send --on-error skip."),
        ("Send kind=unpaired and on_error=skip.", "Send --kind unpaired and --on-error skip."),
        (
            'Send columns={"prompt": "the question", "chosen": "good"}.',
            "Send --column 'prompt=the question' --column chosen=good.",
        ),
        ('Send ignore=["messages[].name"] if not.', "Send --ignore 'messages[].name' if not."),
        ('Send for example values={"0": "first"}.', "Send for example --value 0=first."),
        ("Map them with `columns`.", "Map them with `--column`."),
        ('A broken columns={"a" stays.', 'A broken columns={"a" stays.'),
        (
            "A column my_kind=x, a.kind=y, kind= and unkind=z stay.",
            "A column my_kind=x, a.kind=y, kind= and unkind=z stay.",
        ),
    ],
)
def test_options_stand_for_parameters(said: str, meant: str) -> None:
    assert as_options(said) == meant


def test_each_fault_is_said_once_and_by_its_option() -> None:
    error = ApiError(422, SUMMED_UP)
    assert str(error).splitlines() == [
        "The request is not valid",
        "  /beta: must be greater than 0, not -1",
        "  /dpo/epoch: is an unknown field; did you mean `epochs`?",
    ]
    assert error_text(error, "--set").splitlines()[1:] == [
        "  --beta: must be greater than 0, not -1",
        "  --set dpo.epoch: is an unknown field; did you mean `epochs`?",
    ]
    single = ApiError(422, {**SUMMED_UP, "errors": SUMMED_UP["errors"][:1]})
    assert str(single) == "/beta: must be greater than 0, not -1"
    assert error_text(single) == "--beta: must be greater than 0, not -1"


def test_a_key_that_is_missing_or_wrong_is_said_with_where_it_comes_from() -> None:
    missing = ApiError(401, {"code": "api-key-missing", "detail": "Send a key as `Authorization: Bearer <key>`."})
    assert "PREFTUNE_API_KEY" in error_text(missing)
    assert "Bearer" not in error_text(missing)
    assert error_text(ApiError(401, {"code": "api-key-invalid", "detail": "It is unknown."})).endswith(
        "PREFTUNE_API_KEY."
    )


def test_an_argument_is_called_as_the_command_calls_it() -> None:
    error = ApiError(422, {"detail": "/format: is bad", "errors": [{"pointer": "/format", "detail": "is bad"}]})
    assert error_text(error) == "--format: is bad"
    assert error_text(error, arguments={"format": "FORMAT"}) == "FORMAT: is bad"


def test_ctrl_c_says_that_the_job_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "watch_job", interrupted)
    result = CliRunner().invoke(app, ["watch", "job_1"])
    assert (result.exit_code, result.stdout) == (130, "")
    assert "The job continues." in result.stderr
    assert "preftune jobs cancel job_1" in result.stderr


def test_a_detail_that_says_more_than_the_faults_is_kept() -> None:
    error = ApiError(422, {"detail": "Rejected.", "errors": [{"pointer": "/kind", "detail": "is another"}]})
    assert str(error) == "Rejected.\n  /kind: is another"
    assert error_text(error) == "Rejected.\n  --kind: is another"
    assert str(ApiError(500, {})) == "The service answered 500"
    assert error_text(ApiError(422, {"detail": "Twice.", "errors": [{"pointer": "", "detail": "Twice."}]})) == "Twice."


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "localhost:8000", "ftp://host", "", "http://", "http://x:port"])
def test_an_address_without_http_is_named(address: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        Client(address or " ")
    assert "http:// or https://" in str(caught.value)
    assert ("http://127.0.0.1:8000" in str(caught.value)) == (address == "127.0.0.1:8000")


def test_no_answer_is_said_of_an_address_that_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preftune.transport.MAX_ATTEMPTS", 1)
    with Client("http://127.0.0.1:9", timeout_seconds=1) as client, pytest.raises(Exception, match="is it running"):
        client._transport._retrying(lambda: client._transport.http.get("/health/live"), attempts=1)
    assert isinstance(client._transport.http, httpx.Client)


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, ""), (850, "850"), (260_000, "260 k"), (134_515_008, "135 M"), (1_711_376_384, "1.71 B"), (10**9, "1 B")],
)
def test_parameters_in_three_digits(number: int | None, text: str) -> None:
    assert parameters_text(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (21_074, "5 h 51 min"), (3600, "1 h 0 min"), (90_061, "1 d 1 h")],
)
def test_times_in_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_with_their_nouns() -> None:
    assert (counted(1, "job"), counted(1234, "job"), counted(2, "policy", "policies")) == (
        "1 job",
        "1,234 jobs",
        "2 policies",
    )
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 21, 112)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "112th",
    ]  # fmt: skip
