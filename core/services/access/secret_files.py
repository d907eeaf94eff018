"""Secrets of one deployment, stored as private files in its data directory and never in its database."""

import os
import secrets
import stat
from pathlib import Path

from core.durable_files import new_private_file
from core.settings import Settings, SettingsError

LOCAL_KEY_FILE = "local-key"
"""What serves as key while no API key was ever made: whoever can read the file is the service's own user."""
SESSION_SECRET_FILE = "session-secret"
_SECRET_BYTES = 32
_MAX_BYTES = 4096


def local_key(settings: Settings) -> str:
    """Return the key of this machine's own user, created if missing. Raises SettingsError."""
    return read_or_make(settings.data_dir / LOCAL_KEY_FILE, prefix="pt_local_")


def session_secret(settings: Settings) -> bytes:
    """Return the secret that signs dashboard sessions: the setting, or a created file. Raises SettingsError."""
    if settings.session_secret is not None:
        return settings.session_secret.get_secret_value().encode()
    return read_or_make(settings.data_dir / SESSION_SECRET_FILE).encode()


def make_private(settings: Settings) -> None:
    """Restrict the data directory and its database files to the service's own user. Raises SettingsError."""
    folder = settings.data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
        for path in folder.glob("preftune.db*"):
            if path.stat().st_uid == os.geteuid():
                path.chmod(0o600)
    except OSError as error:
        raise SettingsError(f"PREFTUNE_DATA_DIR: {folder} cannot be used ({error.strerror})") from None


def read_or_make(path: Path, *, prefix: str = "") -> str:
    """Return the file's one line, created if missing; of concurrent creators one wins. Raises SettingsError."""
    try:
        if not path.exists():
            _make(path, prefix + secrets.token_hex(_SECRET_BYTES))
        return _read(path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read or made ({error.strerror})") from None


def _make(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with new_private_file(temporary) as file:
            file.write(f"{text}\n".encode())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # another process was faster
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise SettingsError(f"{path}: must be a file that only its owner can read (chmod 600)")
        text = file.read(_MAX_BYTES).strip()
    if len(text) < 2 * _SECRET_BYTES:
        raise SettingsError(f"{path}: is cut short; remove it, and a new one is made at the next start")
    return text
