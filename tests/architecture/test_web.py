"""The dashboard's sources: no text is read as HTML, nothing is inline or from elsewhere, both themes can be read."""

import hashlib
import re
from pathlib import Path

import pytest

UI = Path(__file__).resolve().parents[2] / "api" / "web" / "ui"
VENDOR = UI / "vendor"
MAX_MODULE_LINES = 400
MIN_CONTRAST = 4.5
SOURCES = sorted(
    path for path in UI.parent.rglob("*") if path.suffix in (".js", ".css", ".html") and VENDOR not in path.parents
)
FORBIDDEN = (
    r"\.(inner|outer)HTML\b", r"insertAdjacentHTML", r"document\.write", r"\beval\(", r"new Function", r"DOMParser",
    r"createContextualFragment", r"srcdoc", r"javascript:", r"localStorage", r"@import\s+url", r"url\(",
)  # fmt: skip
TEXT_ON_SURFACES = [
    (text, surface)
    for text, surfaces in {
        "text": ("page", "surface", "raised", "info-soft", "warn-soft", "bad-soft", "good-soft"),
        "muted": ("page", "surface", "grid"),
        "accent": ("page", "surface"),
        "on-accent": ("accent",),
        "good": ("good-soft",),
        "warn": ("warn-soft", "surface"),
        "bad": ("bad-soft", "surface"),
        "info": ("info-soft",),
    }.items()
    for surface in surfaces
]
CURVES = ("chosen", "rejected", "margin", "loss", "sft", *(f"s{n}" for n in range(1, 9)))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(UI.parent)))
def test_sources_are_small_and_read_no_text_as_html(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    assert [pattern for pattern in FORBIDDEN if re.search(pattern, text)] == []


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    text = (UI / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", text) == []
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert loaded
    assert [address for address in loaded if ":" in address or address.startswith("/")] == [], "below a path too"
    own = [address for address in loaded if not address.startswith("../")]
    assert own
    assert [name for name in own if not (UI / name).is_file()] == []


def test_every_import_leads_to_a_file() -> None:
    for path in SOURCES:
        for target in re.findall(r'^import .*?"([^"]+)";', path.read_text(encoding="utf-8"), re.M | re.S):
            assert target.startswith("."), f"{path.name} imports {target}"
            assert (path.parent / target).resolve().is_file(), f"{path.name} imports {target}"


def test_vendored_files_are_those_of_the_release() -> None:
    table = {
        name: digest
        for digest, name in re.findall(r"([0-9a-f]{64})  (\S+)", (VENDOR / "README.md").read_text(encoding="utf-8"))
    }
    files = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()} - {"README.md"}
    assert files == table.keys()
    for name, digest in table.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_curves_stand_out(theme: str) -> None:
    colors = palette(theme)
    faint = [
        f"{text} on {surface}: {contrast(colors[text], colors[surface]):.2f}"
        for text, surface in TEXT_ON_SURFACES
        if contrast(colors[text], colors[surface]) < MIN_CONTRAST
    ]
    faint += [name for name in CURVES if contrast(colors[name], colors["surface"]) < 3]  # WCAG's bound for graphics
    assert faint == []


def palette(theme: str) -> dict[str, str]:
    css = (UI / "base.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root\s*\{(.*?)\}", css, re.S)
    found = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-fA-F]{3,8});", light))
    return found | (dict(re.findall(r"--([\w-]+):\s*(#[0-9a-fA-F]{3,8});", dark)) if theme == "dark" else {})


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
