"""Prints what the named extras of pyproject.toml need: images install that first, and apart from our own code."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
needed = list(project["dependencies"])
for extra in sys.argv[1:]:
    needed += [line for line in project["optional-dependencies"][extra] if not line.startswith(project["name"])]
sys.stdout.write("\n".join(needed) + "\n")
