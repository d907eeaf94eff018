"""A tar of a folder that `save_to_disk` of Hugging Face's datasets wrote: where the rows of a split lie in it.

Nothing is unpacked: the Arrow data of each member is read where it stands, so no name in the tar is ever a path here.
"""

import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from core.datasets.faults import FileFault, listed, quoted
from core.domain.issue_codes import IssueCode

MAX_MEMBERS: Final = 10_000
MAX_SHOWN_CHARS: Final = 40
MAX_JSON_BYTES: Final = 1024 * 1024
_STATE: Final = "state.json"
_SPLITS: Final = "dataset_dict.json"
_EXPECTED: Final = "a folder that `save_to_disk` of the datasets library wrote"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a file."""

    offset: int
    num_bytes: int


def find_parts(path: Path, split: str | None) -> list[Part]:
    """Return where the Arrow streams of a dataset lie in the tar, in the order of their rows.

    `split`: which dataset of several. Raises FileFault.
    """
    members = _members(path)
    found = _datasets(path, members)
    if split is not None and split not in found:
        raise FileFault(
            IssueCode.SPLIT_TO_CHOOSE,
            f"The folder has no split {quoted(split)}; it has {listed(list(found))}. Send split with one of them"
            + (", or leave it out." if len(found) == 1 else "."),
        )
    if split is None and len(found) > 1:
        raise FileFault(
            IssueCode.SPLIT_TO_CHOOSE,
            f"The folder has the splits {listed(list(found))}. Say which one to take: send split={_shown(found)}.",
        )
    folder = found[split] if split is not None else next(iter(found.values()))
    return [_part(members, folder, name) for name in _data_files(path, members, folder)]


def _shown(splits: Iterable[str]) -> str:
    """Return the first of the names that can be shown as it is."""
    return next((name for name in splits if name.isprintable() and len(name) <= MAX_SHOWN_CHARS), "NAME")


def _members(path: Path) -> dict[PurePosixPath, tarfile.TarInfo]:
    """Return the regular files of the tar by their normal path; of two of one name the later, as unpacking would."""
    members: dict[PurePosixPath, tarfile.TarInfo] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for index, member in enumerate(tar):
                if index >= MAX_MEMBERS:
                    raise FileFault(
                        IssueCode.ARCHIVE, f"The tar has more than {MAX_MEMBERS:,} members; it must be {_EXPECTED}."
                    )
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise FileFault(
                        IssueCode.ARCHIVE,
                        f"The tar has {quoted(member.name)}, a path outside of its folder. Make it again.",
                    )
                if member.isreg() and not member.issparse() and not name.name.startswith("._"):
                    members[name] = member
    except (tarfile.TarError, EOFError, ValueError):
        raise FileFault(
            IssueCode.DAMAGED_FILE, "The tar is damaged or cut short. Make it again, and send it again."
        ) from None
    return members


def _datasets(path: Path, members: dict[PurePosixPath, tarfile.TarInfo]) -> dict[str, PurePosixPath]:
    """Return the folders of datasets by split, in the order of the splits."""
    folders = sorted(name.parent for name in members if name.name == _STATE)
    if not folders:
        raise FileFault(
            IssueCode.ARCHIVE,
            f"The file is a tar archive, and not of {_EXPECTED}. Unpack it and send the data file itself.",
        )
    roots = sorted(name.parent for name in members if name.name == _SPLITS)
    if len(roots) > 1:
        raise FileFault(IssueCode.ARCHIVE, f"The tar has {len(roots)} saved datasets. Make a tar of one of them.")
    if not roots:
        return {folder.name or "train": folder for folder in folders}
    (root,) = roots
    names = _read_json(path, members[root / _SPLITS]).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise _bad_json(root / _SPLITS)
    missing = [name for name in names if root / name not in folders]
    if missing:
        raise FileFault(IssueCode.DAMAGED_FILE, f"The tar lacks the folders of the splits {listed(missing)}.")
    return {name: root / name for name in names}


def _data_files(path: Path, members: dict[PurePosixPath, tarfile.TarInfo], folder: PurePosixPath) -> list[str]:
    state = _read_json(path, members[folder / _STATE])
    files = state.get("_data_files")
    listed_files = files if isinstance(files, list) else []
    names = [file.get("filename") if isinstance(file, dict) else None for file in listed_files]
    if not names or not all(isinstance(name, str) and "/" not in name for name in names):
        raise _bad_json(folder / _STATE)
    if state.get("_indices_data_files"):
        raise FileFault(
            IssueCode.UNSUPPORTED_FORMAT,
            "The saved dataset has its rows in another order by an index (datasets before 2.0). Load it with a newer "
            "version and save it again.",
        )
    return [str(name) for name in names]


def _part(members: dict[PurePosixPath, tarfile.TarInfo], folder: PurePosixPath, name: str) -> Part:
    member = members.get(folder / name)
    if member is None:
        raise FileFault(
            IssueCode.DAMAGED_FILE, f"The tar lacks {quoted(str(folder / name))}, which the saved dataset names."
        )
    return Part(offset=member.offset_data, num_bytes=member.size)


def _read_json(path: Path, member: tarfile.TarInfo) -> dict[str, object]:
    if member.size > MAX_JSON_BYTES:
        raise _bad_json(PurePosixPath(member.name))
    with path.open("rb") as file:
        file.seek(member.offset_data)
        text = file.read(member.size)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _bad_json(PurePosixPath(member.name))
    return value


def _bad_json(name: PurePosixPath) -> FileFault:
    return FileFault(IssueCode.DAMAGED_FILE, f"{quoted(str(name))} is not as `save_to_disk` writes it. Save it again.")
