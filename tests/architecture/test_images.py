"""Images that others built are named by what is in them, not by a tag that may mean another one tomorrow."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def bases(dockerfile: Path) -> set[str]:
    """What the stages start from, with the defaults of arguments, without stages of its own."""
    text = dockerfile.read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.MULTILINE))
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?", text, re.MULTILINE)
    named = {name for _, name in stages}
    found = {re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base) for base, _ in stages}
    return found - named


@pytest.mark.parametrize("name", ["api", "proxy", "worker"])
def test_images_are_built_on_a_pinned_base(name: str) -> None:
    (base,) = bases(ROOT / "docker" / f"{name}.Dockerfile")
    assert DIGEST.search(base), base
    assert bases(ROOT / "docker" / "api.Dockerfile") == {base}, "all share the layers of one base"


def test_services_of_others_are_pinned() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    images = [service["image"] for service in services.values() if not service["image"].startswith("preftune-")]
    assert len(images) == 3
    for image in images:
        as_shipped = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", image)
        assert DIGEST.search(as_shipped), image
