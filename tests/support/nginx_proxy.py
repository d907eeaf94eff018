"""A real nginx in front of the API."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
NGINX_CONFIGURATION = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 0.0.0.0:{port}; {locations} }}
}}
"""


def bare(url: str) -> str:
    """Return what a search suggests: nothing but `proxy_pass`."""
    return f"location / {{ proxy_pass {url}; }}"


@contextmanager
def nginx(folder: Path, locations: str) -> Iterator[str]:
    """Run Debian's nginx with these locations; yields its address.

    Started as root, its workers are another user's; else they are our own's.
    """
    assert NGINX is not None
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder.mkdir(mode=0o755)
    (folder / "nginx.conf").write_text(NGINX_CONFIGURATION.format(folder=folder, port=port, locations=locations))
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
