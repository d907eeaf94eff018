# mypy: ignore-errors
"""Runs on the code of the first release (7b06ab9), never on this tree's: takes files in as it did.

`python released_upload.py <folder> <database url> <file>…`; a JSON object of dataset ids by file name on stdout.
"""

import json
import sys
from pathlib import Path

from backends import PROJECT, make_backend

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.services import datasets


def main() -> None:
    folder, url = Path(sys.argv[1]), sys.argv[2]
    upgrade(url)
    backend = make_backend(folder, Database(open_engine(url)))
    made = {
        path.stem: datasets.create(backend, PROJECT, datasets.Upload(path=path, filename=path.name)).id
        for path in map(Path, sys.argv[3:])
    }
    sys.stdout.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
