"""Takes out of an image's environment what no process of ours loads, and lets it see our own packages.

Compiled bytecode stays: on a read-only root file system it could not be made later, and every start would pay for it.
"""

import shutil
import sys
from pathlib import Path

OURS = "/opt/preftune"
UNUSED = (
    "**/tests",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/*flight*",  # another way to serve tables
    "pyarrow/libarrow_s3.*",
    "pyarrow/_s3fs.*",
    "pyarrow/libarrow_python.so",  # three copies of one file: links that a wheel cannot hold
    "pyarrow/libarrow_python.so.*.*.*",
    "zstandard/_cffi.*",  # for interpreters other than CPython
    "torch/include",
    "torch/test",
    "torch/bin/*test*",
    "torch/bin/protoc*",
    "torch/bin/*Test",
)
"""Inside site-packages."""
SERVICES = {"s3"}
"""What botocore describes, and we use."""


def main(environment: Path) -> None:
    (packages,) = (environment / "lib").glob("python3.*/site-packages")
    for pattern in UNUSED:
        for path in sorted(packages.glob(pattern)):
            remove(path)
    for path in packages.glob("botocore/data/*"):
        if path.is_dir() and path.name not in SERVICES:
            remove(path)
    (packages / "preftune.pth").write_text(OURS + "\n", encoding="utf-8")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
