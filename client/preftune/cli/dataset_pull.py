"""Pull of a dataset from the Hugging Face hub through the datasets library. Imported through `from_extra`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import datasets
import httpx

from preftune.cli.console import fail

_HUB_SPEC: Final = re.compile(r"([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)@([0-9a-f]{40})")


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A split as a Parquet file, and where it comes from."""

    path: Path
    name: str
    metadata: dict[str, str]


def pull(source: str, config: str | None, split: str | None, folder: Path) -> Pulled:
    """Load one split and write it into `folder`; exits with a sentence where that cannot be done.

    `source`: `<organisation>/<name>@<commit>` of the hub, or a folder of this machine with the files of such a
    repository. No code of the repository is run.
    """
    repository, commit = _parse(source)
    try:
        loaded = datasets.load_dataset(repository, name=config, split=split, revision=commit)
    except (ValueError, OSError, RuntimeError, httpx.HTTPError) as error:
        fail(f"{source} cannot be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    if isinstance(loaded, datasets.DatasetDict):
        if len(loaded) > 1:
            fail(f"{source} has the splits {', '.join(loaded)}; say which one: --split {next(iter(loaded))}", code=2)
        split, loaded = next(iter(loaded.items()))
    path = folder / "rows.parquet"
    loaded.to_parquet(path)
    label = Path(repository).name if commit is None else f"{repository}@{commit[:7]}"
    chosen = {"config": config, "split": split}
    metadata = {"source": label if commit is None else source} | {k: v for k, v in chosen.items() if v}
    return Pulled(path=path, name=" ".join([label, *(v for v in chosen.values() if v)])[:255], metadata=metadata)


def _parse(source: str) -> tuple[str, str | None]:
    if Path(source).is_dir():
        return source, None
    found = _HUB_SPEC.fullmatch(source)
    if found is None:
        fail(
            f"{source} is neither a folder nor <organisation>/<name>@<40 hexadecimal digits>. A branch or tag can "
            "change and is not accepted; the commit stands in the repository's history on the hub.",
            code=2,
        )
    return found[1], found[2]
