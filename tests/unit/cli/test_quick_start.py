import gc
import sys
from pathlib import Path

import pytest

import cli.child

SERVICE = "import gc\nwas_collecting = gc.isenabled()\ndef run(settings):\n    return 7 if was_collecting else 0\n"


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_the_service_is_imported_while_the_collector_rests(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of the processor time of a start."""
    (tmp_path / "started_quickly.py").write_text(SERVICE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli.child._ENTRIES, kind, "started_quickly")
    monkeypatch.setattr(cli.child, "end_with_parent", lambda end: None)
    monkeypatch.setenv("PREFTUNE_DATA_DIR", str(tmp_path))
    assert cli.child.main(kind) == 0
    assert gc.isenabled()
    del sys.modules["started_quickly"]
