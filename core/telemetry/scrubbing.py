"""Takes secrets and machine paths out of text that leaves the machine: the output of trainers, shown as a job's log."""

import os
import re
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from core.settings import Settings
from core.telemetry.logging import MIN_SECRET_CHARS, clean_text

_SECRET_NAME = re.compile(r"key|token|secret|pass|credential|auth|cookie", re.IGNORECASE)
# Each begins once in a word and goes over it a fixed number of times, so that the time is linear in the line.
_PATTERNS = (
    # All of the user's part: it may be a token without a colon, and a password may hold an @.
    (re.compile(r"(://)[^\s/'\"<>]*@"), r"\1***@"),
    (
        re.compile(r"([?&](?=[\w-]*(?:key|token|secret|passw|signature|credential))[\w-]++=)[^&\s'\"]+", re.IGNORECASE),
        r"\1***",
    ),
    (
        re.compile(
            r"((?<![\w-])(?=[\w-]*(?:secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key))[\w-]++"
            r"[\"']?\s*[:=]\s*)[\"']?[^\s\"',;]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?\w+\s+)[^\s\"',;]+", re.IGNORECASE), r"\1***"),
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}"
            r"|xox[a-z]-[\w-]{10,}|A[KS]IA[A-Z0-9]{12,})"
        ),
        "***",
    ),
    (re.compile(r"(?<![\w-])(?=[\w-]*eyJ[\w-]{8})[\w-]++\.[\w-]{8,}+\.[\w-]*+"), "***"),
)
_FILE_URL = re.compile(r"\bfile:/+")
_PATH = re.compile(r"(?:(?<![\w/.>%)\]\\~-])|(?<=-[IL]))(?:~[\w.-]*)?/(?![/\s])[^\s\"'`,:;()<>\[\]{}|*]+")
"""Absolute; a URL's path stands behind its host and is none."""
_HIDDEN_PATH = "<path>"
MAX_KEY_LINES = 200
MAX_CLEANED_CHARS = 8192
"""Most of a line that is cleaned, as `Scrubber.cut` returns it."""
_MAX_WORD_CHARS = 4096
"""Taken off at a cut: the word that goes on may be a secret of which no pattern recognises the first part."""


class Scrubber:
    """Cleans line by line. Keys that span lines are `KeyBlock`'s."""

    def __init__(self, secrets: Iterable[str], roots: Mapping[Path, str]) -> None:
        """`roots`: directories that may be told of, and what stands in their place."""
        known = sorted({text for text in secrets if len(text) >= MIN_SECRET_CHARS}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None
        self._longest = len(known[0]) if known else 0
        self._roots = sorted(
            ((f"{path}/", label) for path, label in roots.items()), key=lambda item: len(item[0]), reverse=True
        )

    def cut(self, line: str) -> str:
        """Return as much of the line as is cleaned: up to a place that lies in no word and no known secret."""
        if len(line) <= MAX_CLEANED_CHARS:
            return line
        end = MAX_CLEANED_CHARS
        words = line[end - _MAX_WORD_CHARS : end].split()
        if words and not line[end - 1].isspace():
            end -= len(words[-1])
        if self._secrets is not None:
            near = self._secrets.finditer(line, max(0, end - self._longest), end + self._longest)
            end = min((found.start() for found in near if found.start() < end < found.end()), default=end)
        return line[:end]

    def clean(self, line: str) -> str:
        """Return the line without secrets and paths, in a time that is linear in its length."""
        if self._secrets is not None:
            line = self._secrets.sub("***", line)
        for pattern, replacement in _PATTERNS:
            line = pattern.sub(replacement, line)
        line = _FILE_URL.sub("file:/", line)
        for root, label in self._roots:
            line = line.replace(root, label)
        return clean_text(_PATH.sub(_HIDDEN_PATH, line))


def scrubber_for(settings: Settings, work_dir: Path) -> Scrubber:
    """Knows what this process holds: the settings' secrets, and those of its environment by the names they have."""
    roots = {
        work_dir: "<work>/",
        settings.data_dir.resolve(): "<data>/",
        settings.models_dir.resolve(): "<models>/",
        Path(__file__).resolve().parents[2]: "",
        Path(sysconfig.get_path("purelib")): "site-packages/",
        Path(sysconfig.get_path("platlib")): "site-packages/",
        Path(sysconfig.get_path("stdlib")): "python/",
    }
    return Scrubber(_held_secrets(settings), roots)


def _held_secrets(settings: Settings) -> list[str]:
    values = [getattr(settings, name) for name in Settings.model_fields]
    held = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    held += [value for name, value in os.environ.items() if _SECRET_NAME.search(name)]
    urls = [*os.environ.values(), settings.effective_database_url, settings.effective_broker_url]
    held += [password for url in urls if (password := _password_of(url))]
    lines = [line.strip() for text in held for line in text.splitlines()]
    return [form for line in lines for form in (line, unquote(line), quote(line, safe=""), repr(line)[1:-1])]


def _password_of(url: str) -> str | None:
    try:
        return urlsplit(url).password if "://" in url else None
    except ValueError:
        return None


class KeyBlock:
    """Tells which lines belong to a private key that spans lines."""

    def __init__(self) -> None:
        self._num_left = 0

    def holds(self, line: str) -> bool:
        """Whether the block holds this line, its first and last one included; to be asked for every line in turn."""
        is_inside = self._num_left > 0
        self._num_left = max(0, self._num_left - 1)
        if "PRIVATE KEY" in line and "-----" in line:
            self._num_left = MAX_KEY_LINES if line.rfind("BEGIN") > line.rfind("END ") else 0
            return True
        return is_inside
