"""docs/guide/errors.md lists every error code and every failure code of jobs.

`python tests/architecture/test_errors_page.py` writes the page's tables.
"""

import subprocess
import sys
from pathlib import Path

from api.app import create_app
from api.docs.openapi import problem_codes
from core.domain.jobs.failure_codes import TITLES
from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guide" / "errors.md"
MARK = "-->\n"


def render() -> str:
    create_app(Settings())  # whatever the API can answer is imported, and nothing else
    codes = "".join(f"| `{code}` | {status} | {title} |\n" for code, (status, title) in sorted(problem_codes().items()))
    failures = "".join(f"| `{code.value}` | {title} |\n" for code, title in TITLES.items())
    return (
        f"\n| code | status | title |\n|---|---|---|\n{codes}"
        f"\n## Why a job failed\n\n| code | title |\n|---|---|\n{failures}"
    )


def test_the_page_lists_every_code() -> None:
    command = [sys.executable, __file__, "--print"]
    rendered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert PAGE.read_text(encoding="utf-8").partition(MARK)[2] == rendered, f"{sys.executable} {__file__}"


if __name__ == "__main__" and "--print" in sys.argv:
    sys.stdout.write(render())
elif __name__ == "__main__":
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(f"{head}{MARK}{render()}", encoding="utf-8")
