"""Counts how the code is arranged: files per folder, imports between rooms, cycles, upward imports, lines.

`python tests/architecture/house_figures.py [checkout]` prints the figures, `… --beside OTHER` the lines of each
area in both checkouts, `… --since COMMIT` what became of the modules that were there, `… --commits COMMIT` the lines
that the commits of the re-arrangement since then added and removed. A room is a folder, or a module at the root of its
package.
"""

import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import grimp

AREAS = (
    "api/openai",
    "api/web",
    "api",
    "worker",
    "cli",
    "client",
    "core/base_models",
    "core/database",
    "core/datasets",
    "core/domain",
    "core/services/operations",
    "core/services/webhooks",
    "core/services",
    "core/storage",
    "core/tokenization",
    "core/training",
    "core",
    "migrations",
)
"""Each file counts in the first area that it lies in, and the others hold the rest."""
PACKAGES = ("api", "worker", "cli", "core", "preftune")
PRODUCT = ("api", "worker", "cli", "core", "client", "migrations")
ENGINE_LAYERS = (
    ("run_on_devices", "launcher"),
    ("pipeline", "failure_mapping"),
    ("stages",),
    ("measures",),
    ("steps",),
    ("model",),
    ("checkpoints",),
    ("ranks", "lockstep"),
    ("data",),
    ("kernels", "losses"),
    ("plan", "observer", "failures", "seeding"),
)
"""The rooms of `core.training` from the top; those of one line do not import each other upwards."""
_PER_LINE = {room: height for height, rooms in enumerate(ENGINE_LAYERS) for room in rooms}


def room_of(module: str, package: str) -> str:
    """The room of a module inside a package: the first name below it."""
    return module.removeprefix(f"{package}.").partition(".")[0]


def room_imports(graph: grimp.ImportGraph, package: str) -> Counter[tuple[str, str]]:
    """Number of imports from one room of a package to another."""
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        if not module.startswith(f"{package}."):
            continue
        for imported in graph.find_modules_directly_imported_by(module):
            if imported.startswith(f"{package}.") and room_of(imported, package) != room_of(module, package):
                found[room_of(module, package), room_of(imported, package)] += 1
    return found


def upward_imports(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """Imports of the engine that go from a lower room to a higher one."""
    found = []
    for module in sorted(graph.modules):
        if not module.startswith("core.training."):
            continue
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            rooms = [_PER_LINE.get(room_of(name, "core.training")) for name in (module, imported)]
            if imported.startswith("core.training.") and None not in rooms and rooms[1] < rooms[0]:
                found.append((module, imported))
    return found


def cycles(edges: Counter[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Groups of rooms that import each other in a circle."""
    rooms = sorted({room for edge in edges for room in edge})
    reach = {room: {target for source, target in edges if source == room} for room in rooms}
    for middle in rooms:
        for room in rooms:
            if middle in reach[room]:
                reach[room] |= reach[middle]
    groups = {
        tuple(sorted(other for other in rooms if other in reach[room] and room in reach[other])) for room in rooms
    }
    return sorted(group for group in groups if len(group) > 1)


def files_per_folder(root: Path) -> list[tuple[int, str]]:
    """Folders of product code with more than fifteen modules."""
    folders = Counter(
        path.parent.relative_to(root).as_posix()
        for package in ("api", "worker", "cli", "core", "client/preftune")
        for path in (root / package).rglob("*.py")
        if path.name != "__init__.py"
    )
    return sorted(((number, name) for name, number in folders.items() if number > 15), reverse=True)


def lines_by_area(root: Path) -> Counter[str]:
    """Lines of Python of each area, and of the dashboard's modules in `api/web`."""
    found: Counter[str] = Counter()
    paths = [path for package in PRODUCT for path in (root / package).rglob("*")]
    for path in paths:
        name = path.relative_to(root)
        if path.suffix not in (".py", ".js") or "build" in name.parts or not path.is_file():
            continue
        area = max((area for area in AREAS if name.is_relative_to(area)), key=len)
        found[area] += len(path.read_text(encoding="utf-8").splitlines())
    return found


def compare(root: Path, other: Path) -> str:
    """Return a table of the lines of both checkouts."""
    now, before = lines_by_area(root), lines_by_area(other)
    rows = [(area, before[area], now[area]) for area in AREAS] + [("all", before.total(), now.total())]
    lines = ["| area | before | now | added |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {area} | {old:,} | {new:,} | {new - old:+,} |" for area, old, new in rows]) + "\n"


def since(commit: str) -> str:
    """Return the lines of modules that a commit had, where they are now, and of those that came later.

    A module is found again by git where at least two fifths of it are as they were.
    """
    before, now = _lines_at(commit), _lines_at("HEAD")
    found = _git("diff", "--find-renames=40%", "-l9999", "--name-status", commit, "HEAD", "--", *PRODUCT)
    moves = [line.split("\t")[1:] for line in found.splitlines() if line.startswith("R")]
    again = {name: name for name in before if name in now} | {old: new for old, new in moves if old in before}
    gone = before.keys() - again.keys()
    later = now.keys() - set(again.values())
    return (
        f"{len(before)} modules with {sum(before.values()):,} lines at {commit}\n"
        f"{len(again)} are found again: {sum(before[name] for name in again):,} lines then, "
        f"{sum(now[name] for name in set(again.values())):,} now\n"
        f"{len(gone)} with {sum(before[name] for name in gone):,} lines are gone or in pieces\n"
        f"{len(later)} came later: {sum(now[name] for name in later):,} lines\n"
    )


def _lines_at(commit: str) -> dict[str, int]:
    names = _git("ls-tree", "-r", "--name-only", commit, *PRODUCT).splitlines()
    wanted = [name for name in names if name.endswith((".py", ".js"))]
    return {name: _git("show", f"{commit}:{name}").count("\n") for name in wanted}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def commits(since: str) -> str:
    """Return lines added and removed by the commits since `since` that `rearrangement.txt` names, by its headings."""
    added, removed = _changes_by_subject(since)
    groups: dict[str, list[str]] = defaultdict(list)
    for line in (Path(__file__).parent / "rearrangement.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            heading = line.removeprefix("# ")
        elif line:
            groups[heading].append(line)
    unknown = [subject for subjects in groups.values() for subject in subjects if subject not in added]
    if unknown:
        sys.exit("rearrangement.txt names commits that are not there:\n" + "\n".join(unknown))
    lines = []
    for heading, subjects in groups.items():
        more, less = (sum(counts[subject] for subject in subjects) for counts in (added, removed))
        lines.append(f"{more - less:+6,} (+{more:,} -{less:,}) in {len(subjects)} commits: {heading}\n")
    return "".join(lines)


def _changes_by_subject(since: str) -> tuple[Counter[str], Counter[str]]:
    """Return lines of product code that were added and removed, by the first line of the commit's message."""
    added: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    log = _git("log", "-M40%", "-l9999", "--numstat", "--format=%x00%s", f"{since}..HEAD", "--", *PRODUCT)
    for commit in log.split("\0")[1:]:
        subject, *changes = commit.splitlines()
        added[subject] += 0
        for more, less, name in (change.split("\t") for change in changes if change):
            if name.rstrip("}").endswith((".py", ".js")):  # "core/{old.py => new.py}" is a file that was moved
                added[subject] += int(more)
                removed[subject] += int(less)
    return added, removed


def product_lines(root: Path) -> int:
    """Lines of product code, comments and docstrings included."""
    return sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for package in ("api", "worker", "cli", "core", "client/preftune", "migrations")
        for path in (root / package).rglob("*.py")
    )


def main(root: Path) -> None:
    sys.path[:0] = [str(root), str(root / "client/preftune")]
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    lines = [f"product code: {product_lines(root)} lines"]
    lines += [f"{name}: {number} modules" for number, name in files_per_folder(root)]
    for package in ("core.training", "core", "worker", "api"):
        edges = room_imports(graph, package)
        lines.append(f"{package}: {len(edges)} pairs of rooms joined by an import, circles: {cycles(edges) or 'none'}")
    lines += [f"upward: {source} imports {target}" for source, target in upward_imports(graph)]
    edges = room_imports(graph, "core.services")
    lines.append(f"core.services: {len(edges)} pairs, circles: {cycles(edges) or 'none'}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--beside" in arguments:
        place = arguments.index("--beside")
        sys.stdout.write(compare(Path(arguments[0] if place else "."), Path(arguments[place + 1])))
    elif "--commits" in arguments:
        sys.stdout.write(commits(arguments[arguments.index("--commits") + 1]))
    elif "--since" in arguments:
        sys.stdout.write(since(arguments[arguments.index("--since") + 1]))
    else:
        main(Path(arguments[0] if arguments else ".").resolve())
