"""Every kind of event that the code can write is listed with its meaning, and docs/guide/events.md shows the list.

`python tests/unit/domain/test_event_kinds.py` writes the page's table.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from core.domain.jobs import event_kinds
from core.domain.jobs.event_kinds import EVENT_KINDS
from core.domain.jobs.job_state import JobStatus

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "guide" / "events.md"
MARK = "-->\n"
KIND_AT = {"EventDraft": 0, "TrainerEvent": 1, "event": 1, "tell_once": 0, "_wish": 3}
"""Call -> position of the kind, where it is no keyword."""
COMPUTED = {"core/services/attempts/requeue.py": {JobStatus.CANCELLED.value, JobStatus.PAUSED.value}}
"""Module -> kinds that it takes from elsewhere."""


def written_kinds() -> Iterator[tuple[str, ast.expr]]:
    """(module, expression) of every kind in a call that makes an event."""
    for package in ("core", "worker"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name not in KIND_AT:
                    continue
                given = [keyword.value for keyword in node.keywords if keyword.arg == "kind"]
                given += node.args[KIND_AT[name] : KIND_AT[name] + 1]
                yield from ((str(path.relative_to(ROOT)), expression) for expression in given[:1])


def texts(expression: ast.expr) -> set[str]:
    """Every value that the expression can have, as far as it says so itself."""
    if isinstance(expression, ast.Constant):
        return {expression.value} if isinstance(expression.value, str) else set()
    if isinstance(expression, ast.IfExp):
        return texts(expression.body) | texts(expression.orelse)
    if isinstance(expression, ast.Name) and expression.id.isupper():
        return {getattr(event_kinds, expression.id, expression.id.lower())}
    return set()


def test_every_kind_that_is_written_is_listed_and_the_other_way_round() -> None:
    found: set[str] = set().union(*COMPUTED.values())
    for _, expression in written_kinds():
        found |= texts(expression)
    assert found == EVENT_KINDS.keys()


def render() -> str:
    rows = "".join(f"| `{kind}` | {meaning} |\n" for kind, meaning in sorted(EVENT_KINDS.items()))
    return f"| kind | meaning |\n|---|---|\n{rows}"


def test_the_page_lists_them() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(MARK)[2] == render(), f"python {__file__}"


if __name__ == "__main__":
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(f"{head}{MARK}{render()}", encoding="utf-8")
