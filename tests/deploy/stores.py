"""S3 servers of other makers, started as docs/operate/servers.md says, with empty folders."""

import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.documented import blocks_below, replaced
from deploy.programs import find, open_folder, started
from servers import free_low_ports, free_port

from core.storage.s3 import S3Access

PAGE = "servers.md"
FOLDER, PORT = "/srv/preftune", "9000"
KEY_ID, SECRET = "preftune", "change-me-change-me"
NAMES = ("SeaweedFS", "rclone", "JuiceFS gateway", "nanio", "localbucket", "moto")
_INNER_PORTS = ("master.port", "volume.port", "filer.port", "admin.port")
_VARIABLE = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True, kw_only=True)
class Store:
    name: str
    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def access(self, **changes: str) -> S3Access:
        """Return the access to a bucket of its own."""
        values = {
            "bucket": f"bucket-{uuid.uuid4().hex[:8]}",
            "endpoint_url": self.endpoint_url,
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
        }
        return S3Access(**values | changes)  # type: ignore[arg-type]


@contextmanager
def store(name: str) -> Iterator[Store]:
    """Run a server by the documented lines: all but the last prepare it, the last one is the server."""
    (block,) = blocks_below(PAGE, name)
    with open_folder("store") as folder:
        port, more = free_port(), list[str]()
        if name == "SeaweedFS":
            port, *inner = free_low_ports(1 + len(_INNER_PORTS))
            # What would meet other tests on this machine; a volume for each bucket.
            more = [f"-{option}={number}" for option, number in zip(_INNER_PORTS, inner, strict=True)]
            more += ["-volume.max=1000", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]
            more += ["-master.telemetry=false"]
        text = replaced(block, (PORT, str(port)))
        *before, last = [_parsed(line) for line in text.replace(FOLDER, str(folder)).splitlines()]
        for environment, command in before:
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        environment, command = last
        with started([*command, *more], port, folder, environment):
            yield Store(name=name, port=port)


def _parsed(line: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables before a command, and the command."""
    words = shlex.split(line)
    variables = [word for word in words if _VARIABLE.match(word)]
    rest = words[len(variables) :]
    return dict(word.split("=", 1) for word in variables), [find(rest[0]), *rest[1:]]
