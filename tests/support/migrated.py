"""A SQLite file with this version's schema, made once in a process and copied where a test begins with a database."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from core.database.migrate import upgrade


@cache
def migrated_sqlite() -> Path:
    """To be copied; it goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="preftune-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    upgrade(f"sqlite:///{folder}/template.db")
    return folder / "template.db"


def copy_migrated(path: Path) -> Path:
    """Put a database there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(migrated_sqlite(), path))
