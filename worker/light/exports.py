"""Exports in the light lane: the policy is fetched, converted, read back by llama.cpp, and stored."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from core.domain.jobs.stored_files import StoredFile
from core.services.requests import exports
from core.services.requests.exports import ExportClaim
from core.storage.object_store import StoreUnavailable
from core.storage.trees import file_sha256
from worker.light.lane import RequestContext, RequestKind, RequestRefused
from worker.processes.start import command_of

CONVERTER_COMMAND = command_of("gguf_conversion")
CHECKER_COMMAND = command_of("gguf_check")
CONVERTER_DIR = "gguf-converter"
"""In the environment: llama.cpp's converter with the `gguf` it needs, apart from the packages."""


def find_converter(setting: Path | None) -> Path | None:
    """Return the folder for the converter's path: as set (a checkout of llama.cpp will do), or as installed."""
    folder = setting or Path(sys.prefix) / CONVERTER_DIR
    return folder.resolve() if (folder / "conversion").is_dir() else None


def export(claim: ExportClaim, context: RequestContext) -> None:
    converter = find_converter(context.backend.settings.gguf_converter_dir)
    if converter is None:
        raise RequestRefused(
            "This worker has no GGUF converter; its operator can install it (docs/guide/artifacts.md)."
        )
    task = {
        "policy_dir": str(context.fetch(claim.policy, "policy")),
        "format": claim.format,
        "name": claim.job_id,
        "num_threads": context.num_threads,
    }
    (context.work_dir / "export.json").write_text(json.dumps(task), encoding="utf-8")
    with refusals(context.work_dir):
        # A checkout has `gguf` in a folder of its own.
        path = f"{converter}:{converter / 'gguf-py'}"
        context.run(CONVERTER_COMMAND, "The conversion to GGUF", {"PYTHONPATH": path}, reads=[converter])
    with refusals(context.work_dir):
        # llama.cpp's server listens on loopback, even for one that calls it directly.
        context.run(CHECKER_COMMAND, "Reading the GGUF file back", allows_tcp=True)
    stored = _store(context, claim, context.work_dir / "policy.gguf")
    verification = json.loads((context.work_dir / "verification.json").read_text(encoding="utf-8"))
    exports.finish(context.backend, claim, stored, verification)


EXPORTS = RequestKind(exports.claim, export)


@contextmanager
def refusals(work_dir: Path) -> Iterator[None]:
    """Raise RequestRefused with the sentence that a program left, if it left one."""
    yield
    if (work_dir / "refused.txt").is_file():
        raise RequestRefused((work_dir / "refused.txt").read_text(encoding="utf-8"))


def _store(context: RequestContext, claim: ExportClaim, source: Path) -> StoredFile:
    """Store the file and check that the store returns what llama.cpp has read."""
    key = claim.prefix + PurePosixPath(claim.path).name
    sha256 = file_sha256(source)
    context.check()
    context.backend.store.put_file(key, source)
    context.check()
    back = source.with_name("back.gguf")
    context.backend.store.get_file(key, back)
    if file_sha256(back) != sha256:
        raise StoreUnavailable("The object store gives back other bytes than it was given.")
    return StoredFile(path=claim.path, key=key, num_bytes=source.stat().st_size, sha256=sha256)
