"""Proxies with the configurations of docs/operate/proxies.md, in front of a service of a test."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from deploy.documented import blocks, replaced, table
from deploy.programs import find, make_certificate, open_folder, started
from servers import free_port

PAGE = "proxies.md"
DOMAIN, UPSTREAM = "tune.example.org", "127.0.0.1:8000"
CERTIFICATE, KEY, CERTIFICATE_AND_KEY = "/etc/ssl/tune.pem", "/etc/ssl/tune.key", "/etc/ssl/tune-with-key.pem"
DEBIAN_DEFAULTS = """
global
    maxconn 200
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
"""
"""As Debian's haproxy.cfg has them."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a proxy of a test listens, what it leads to, and its certificate."""

    folder: Path
    port: int
    upstream: str
    certificate: Path
    key: Path
    root: str


@contextmanager
def proxy(name: str, upstream_url: str, root: str = "", *, is_documented: bool = True) -> Iterator[tuple[str, Path]]:
    """Run a proxy in front of a service; yields its https address, with the root path, and its certificate.

    Args:
        name: heading of the page, such as `nginx`.
        root: empty, or the documented `/preftune`.
        is_documented: whether it has the page's configuration; else the least that leads to the service.
    """
    with open_folder(name.lower()) as folder:
        certificate, key = make_certificate(folder)
        upstream = urlsplit(upstream_url).netloc
        place = Place(folder=folder, port=free_port(), upstream=upstream, certificate=certificate, key=key, root=root)
        command, environment = _RUNNERS[name](place, configurations(name, root) if is_documented else _LEAST[name])
        url = f"https://localhost:{place.port}{root}"
        with started(command, place.port, folder, environment):
            _wait_until_it_leads_there(f"{url}/health/live", certificate)
            yield url, certificate


def _wait_until_it_leads_there(url: str, certificate: Path) -> None:
    """Wait for what a proxy reads after it listens."""
    context = ssl.create_default_context(cafile=str(certificate))
    for _ in range(200):
        with suppress(httpx.TransportError):
            if httpx.get(url, verify=context).status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail(f"{url} does not lead to the service")


def configurations(name: str, root: str) -> list[str]:
    """Return the documented files of a proxy."""
    found = blocks(PAGE, name)
    assert found
    if root:
        old, new = table(PAGE, "Below a path")[name]
        assert any(old in text for text in found), f"no {old!r} in the configuration of {name}"
        found = [text.replace(old, new) for text in found]
    return found


def _nginx(place: Place, files: list[str]) -> tuple[list[str | Path], dict[str, str]]:
    server = replaced(
        files[0],
        ("listen 443 ssl;", f"listen 0.0.0.0:{place.port} ssl;"),
        (f"server_name {DOMAIN};", "server_name localhost;"),
        (CERTIFICATE, str(place.certificate)),
        (KEY, str(place.key)),
        (UPSTREAM, place.upstream),
    )
    temporary = "".join(f"{kind}_temp_path {place.folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (place.folder / "nginx.conf").write_text(
        f"daemon off; pid {place.folder}/pid; error_log {place.folder}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {place.folder}/body;\n{temporary}{server} }}"
    )
    return [find("nginx"), "-p", place.folder, "-c", place.folder / "nginx.conf"], {}


def _haproxy(place: Place, files: list[str]) -> tuple[list[str | Path], dict[str, str]]:
    both = place.folder / "both.pem"
    both.write_text(place.certificate.read_text() + place.key.read_text())
    text = replaced(
        files[0],
        ("bind :443", f"bind 0.0.0.0:{place.port}"),
        (CERTIFICATE_AND_KEY, str(both)),
        (UPSTREAM, place.upstream),
    )
    (place.folder / "haproxy.cfg").write_text(DEBIAN_DEFAULTS + text)
    return [find("haproxy"), "-db", "-f", place.folder / "haproxy.cfg"], {}


def _caddy(place: Place, files: list[str]) -> tuple[list[str | Path], dict[str, str]]:
    site = f"https://localhost:{place.port} {{\n    tls {place.certificate} {place.key}"
    text = replaced(files[0], (f"{DOMAIN} {{", site), (UPSTREAM, place.upstream))
    # No port but its own, and nothing installed into this machine's trust store.
    (place.folder / "Caddyfile").write_text(
        "{\n    admin off\n    auto_https disable_redirects\n    skip_install_trust\n}\n" + text
    )
    home = {"HOME": str(place.folder), "XDG_DATA_HOME": str(place.folder), "XDG_CONFIG_HOME": str(place.folder)}
    return [find("caddy"), "run", "--config", place.folder / "Caddyfile", "--adapter", "caddyfile"], home


def _traefik(place: Place, files: list[str]) -> tuple[list[str | Path], dict[str, str]]:
    dynamic = place.folder / "preftune.yml"
    static = replaced(files[0], ('":443"', f'"0.0.0.0:{place.port}"'), ("/etc/traefik/preftune.yml", str(dynamic)))
    (place.folder / "traefik.yml").write_text(static)
    dynamic.write_text(
        replaced(
            files[1],
            (DOMAIN, "localhost"),
            (UPSTREAM, place.upstream),
            (CERTIFICATE, str(place.certificate)),
            (KEY, str(place.key)),
        )
    )
    return [find("traefik"), f"--configFile={place.folder / 'traefik.yml'}"], {}


_RUNNERS = {"nginx": _nginx, "HAProxy": _haproxy, "Caddy": _caddy, "Traefik": _traefik}
NAMES = tuple(_RUNNERS)
_TLS = f"listen 443 ssl; server_name {DOMAIN}; ssl_certificate {CERTIFICATE}; ssl_certificate_key {KEY};"
_LEAST = {"nginx": [f"server {{ {_TLS} location / {{ proxy_pass http://{UPSTREAM}; }} }}"]}
