"""Compares an installed GGUF converter with copies of llama.cpp: `compare_converter.py <gguf-converter> <llama.cpp> …`

Says how many files are byte for byte those of one of the copies, and prints every line of the others that no copy has.
Decision 0014 says which copies, and what came out.
"""

import sys
from pathlib import Path


def compare(converter: Path, copies: list[Path]) -> tuple[int, dict[str, list[str]]]:
    """(number of identical files, lines of each other file that no copy has)."""
    known = {line for copy in copies for path in _sources(copy) for line in path.read_text().splitlines()}
    num_same, others = 0, {}
    for path in _sources(converter):
        name = str(path.relative_to(converter))
        upstream = [copy / ("gguf-py/" + name if name.startswith("gguf/") else name) for copy in copies]
        if any(one.is_file() and one.read_bytes() == path.read_bytes() for one in upstream):
            num_same += 1
        else:
            others[name] = [line for line in path.read_text().splitlines() if line not in known]
    return num_same, others


def _sources(folder: Path) -> list[Path]:
    parts = [folder / "conversion", folder / "gguf", folder / "gguf-py" / "gguf"]
    return sorted([*folder.glob("convert_hf_to_gguf*.py"), *(path for part in parts for path in part.rglob("*.py"))])


def main() -> None:
    num_same, others = compare(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
    print(f"{num_same} files are those of a copy, {len(others)} are not")  # noqa: T201
    for name, lines in others.items():
        print(f"{name}: {len(lines)} lines that no copy has", *lines, sep="\n    ")  # noqa: T201


if __name__ == "__main__":
    main()
