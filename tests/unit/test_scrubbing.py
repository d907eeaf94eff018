"""What is taken out of a job's log, and what is left to read."""

import sysconfig
import time
from pathlib import Path

import pytest

from core.settings import Settings
from core.telemetry.scrubbing import MAX_CLEANED_CHARS, MAX_KEY_LINES, KeyBlock, Scrubber, scrubber_for

CANARY = "canary/of the+environment"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scrubber(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scrubber:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", CANARY)
    monkeypatch.setenv("TRACKING_URI", "https://me:canary-in-a-url@tracking.example/x")
    settings = Settings(
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        database_url="postgresql://me:canary-of-the-database@db/preftune",
        s3_secret_access_key="canary-of-the-store",
        broker_url="redis://:canary@broker:6379/0",
    )
    return scrubber_for(settings, tmp_path / "data" / "scratch" / "job_1-a1")


@pytest.fixture
def clean(scrubber: Scrubber):  # type: ignore[no-untyped-def]
    return scrubber.clean


@pytest.fixture
def cut(scrubber: Scrubber):  # type: ignore[no-untyped-def]
    return scrubber.cut


@pytest.mark.parametrize(
    "text",
    [
        f"ValueError: bad token {CANARY}",
        f"quoted {CANARY!r} and {CANARY.replace('/', '%2F').replace(' ', '%20').replace('+', '%2B')}",
        "canary-of-the-store, canary-of-the-database and canary-in-a-url alone",
        "cannot reach redis://:canary@broker:6379/0",
        "cannot reach postgresql+psycopg://u:a@canary@db/x",
        "git clone https://canary-token-without-a-name@github.com/x",
        "GET https://host/x?token=canary&size=3",
        "GET https://host/x?X-Amz-Signature=canary",
        "config: {'api_key': 'canary', \"password\": \"canary\", 'client_secret': 'canary'}",
        "Authorization: Bearer canary",
        "pt_canary_0123456789",
        "hf_canarycanarycanarycanary",
        "/home/canary/file.txt",
        'open("/canary/x y")',
        "-I/usr/canary/include LD_LIBRARY_PATH=/opt/canary:/opt/canary/b",
        "file:///srv/canary/model.safetensors",
        "~/canary and ~canary/x (in /canary)",
    ],
)
def test_nothing_secret_and_no_path_is_left(clean, text: str) -> None:  # type: ignore[no-untyped-def]
    assert "canary" not in clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "loss 0.6931 at 120 tokens/s, 3/4 done, and/or 1 / 2",
        "num_tokens=123 eos_token_id: 2 pad_token='<pad>' max_tokens 5 key: value tokenizer",
        "See https://pytorch.org/docs/stable/notes/cuda.html#memory for details",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    ],
)
def test_ordinary_text_stays(clean, text: str) -> None:  # type: ignore[no-untyped-def]
    assert clean(text) == text


def test_frames_stay_readable(clean, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    frames = {
        ROOT / "core" / "training" / "pipeline.py": "core/training/pipeline.py",
        Path(sysconfig.get_path("purelib")) / "torch" / "nn.py": "site-packages/torch/nn.py",
        Path(sysconfig.get_path("stdlib")) / "json" / "decoder.py": "python/json/decoder.py",
        tmp_path / "data" / "scratch" / "job_1-a1" / "rows.jsonl": "<work>/rows.jsonl",
        tmp_path / "models" / "m" / "config.json": "<models>/m/config.json",
        tmp_path / "elsewhere.py": "<path>",
    }
    for path, shown in frames.items():
        assert clean(f'  File "{path}", line 3, in run') == f'  File "{shown}", line 3, in run'


def test_what_a_terminal_obeys_is_spelt_out(clean) -> None:  # type: ignore[no-untyped-def]
    assert clean("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"


def test_a_private_key_is_hidden_as_a_block() -> None:
    block = KeyBlock()
    lines = ["before", "-----BEGIN RSA PRIVATE KEY-----", "canary", "-----END RSA PRIVATE KEY-----", "after"]
    assert [block.holds(line) for line in lines] == [False, True, True, True, False]
    assert block.holds("-----BEGIN PRIVATE KEY----- x -----END PRIVATE KEY-----")
    assert not block.holds("after")
    assert block.holds("-----BEGIN PRIVATE KEY-----")
    assert [block.holds("x") for _ in range(MAX_KEY_LINES + 1)].count(True) == MAX_KEY_LINES, "one without an end"


@pytest.mark.parametrize(
    "word",
    [
        "a.",
        "a+",
        "api_key",
        "?key",
        "eyJ-",
        "eyJaaaaaaaa.",
        "a://",
        "authorization: ",
        "bearer ",
        "~a",
        "sk-",
        "secret-",
    ],
)
def test_a_line_of_beginnings_is_cleaned_in_linear_time(clean, word: str) -> None:  # type: ignore[no-untyped-def]
    began = time.process_time()
    clean((word * 65536)[:65536])
    assert time.process_time() - began < 2, (
        "some milliseconds; those that begin anew at every character take half a minute"
    )


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("my_api_key_of_today = 'canary'", "my_api_key_of_today = ***'"),
        ("x-secret-key: canary", "x-secret-key: ***"),
        ("https://h/x?a=1&my-api-key-2=canary", "https://h/x?a=1&my-api-key-2=***"),
        ("token eyJcanary1234.canary5678.canary90, then", "token ***, then"),
    ],
)
def test_what_stands_around_a_secret_stays(clean, text: str, cleaned: str) -> None:  # type: ignore[no-untyped-def]
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "secret", [CANARY, "https://me:canary@host/x", "hf_canarycanarycanary", "x" * 90 + "canary-of-the-store"]
)
def test_a_secret_on_the_cut_of_a_long_line_is_not_shown_in_part(  # type: ignore[no-untyped-def]
    clean, cut, secret: str
) -> None:
    for before in range(MAX_CLEANED_CHARS - len(secret) - 2, MAX_CLEANED_CHARS + 2):
        line = "password=" + "y" * (before - 22) + " and then it "
        kept = cut(line[:before].ljust(before) + secret + " goes on" * 9000)
        assert len(kept) <= MAX_CLEANED_CHARS
        cleaned = clean(kept)
        assert "can" not in cleaned
        assert cleaned.startswith("password=*** and then ")


def test_short_lines_are_not_cut(cut) -> None:  # type: ignore[no-untyped-def]
    assert cut("x" * MAX_CLEANED_CHARS) == "x" * MAX_CLEANED_CHARS
    assert cut("x" * 100_000) == "x" * 4096
    assert cut("word " * 100_000) == ("word " * 100_000)[: MAX_CLEANED_CHARS - MAX_CLEANED_CHARS % 5]
