import gc
import sys
from pathlib import Path

import pytest

from core.quick_imports import import_quickly

NOTES_THE_COLLECTOR = "import gc\nwas_collecting = gc.isenabled()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_collector_rests_meanwhile_and_works_afterwards(folder: Path) -> None:
    (folder / "imported_quickly.py").write_text(NOTES_THE_COLLECTOR)
    module = import_quickly("imported_quickly")
    assert not module.was_collecting
    assert gc.isenabled()
    assert module is sys.modules.pop("imported_quickly")


def test_it_works_again_after_a_module_that_fails(folder: Path) -> None:
    (folder / "fails_at_import.py").write_text("raise ArithmeticError")
    with pytest.raises(ArithmeticError):
        import_quickly("fails_at_import")
    assert gc.isenabled()


def test_who_has_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        import_quickly("json")
        assert not gc.isenabled()
    finally:
        gc.enable()
