"""docker-compose.tls.yml as the real Compose merges it, and docker/Caddyfile as the real Caddy runs it; no engine."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import serve
from deploy.documented import replaced
from deploy.programs import ROOT, find, open_folder, started
from servers import free_port

KEY = "pt_canary_0123456789abcdef_0123456789"
FILES = ("docker-compose.yml", "docker-compose.tls.yml")
SUBNET = "172.31.255.0/28"


def merged(folder: Path, **environment: str) -> dict[str, Any]:
    files = [word for name in FILES for word in ("-f", str(ROOT / name))]
    run = subprocess.run(
        [find("docker-compose"), *files, "--env-file", "/dev/null", "config"],
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if run.returncode != 0:
        raise ValueError(run.stderr)
    found: dict[str, Any] = yaml.safe_load(run.stdout)
    return found


def test_the_proxy_alone_is_reached_and_believed(tmp_path: Path) -> None:
    found = merged(tmp_path, PREFTUNE_DOMAIN="tune.example.org")
    services = found["services"]
    published = {name: [port["published"] for port in service.get("ports", [])] for name, service in services.items()}
    assert {name: ports for name, ports in published.items() if ports} == {"proxy": ["80", "443", "443"]}
    proxy, api = services["proxy"], services["api"]
    assert proxy["networks"].keys() & api["networks"].keys() == {"edge"}, "no way past the network that is trusted"
    assert [name for name, service in services.items() if "edge" in service["networks"]] == ["api", "proxy"]
    assert found["networks"]["edge"]["ipam"]["config"] == [{"subnet": SUBNET}]
    assert api["environment"]["PREFTUNE_TRUSTED_PROXIES"] == SUBNET
    assert api["environment"]["PREFTUNE_DATABASE_URL"], "the rest of its environment stays"
    for name in ("read_only", "cap_drop", "security_opt", "mem_limit", "pids_limit", "healthcheck", "restart"):
        assert proxy[name], name


def test_without_a_name_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PREFTUNE_DOMAIN"):
        merged(tmp_path)


def test_the_image_s_caddyfile_leads_to_the_service_over_tls(tmp_path: Path) -> None:
    caddy = find("caddy")
    with serve(tmp_path / "service", api_key=KEY, trusted_proxies="127.0.0.1") as api, open_folder("caddy") as folder:
        https = free_port()
        text = replaced(
            (ROOT / "docker" / "Caddyfile").read_text(),
            ("http_port 8080", f"http_port {free_port()}"),
            ("https_port 8443", f"https_port {https}"),
            ("api:8000", api.url.removeprefix("http://")),
        )
        (folder / "Caddyfile").write_text(text)
        environment = {"PREFTUNE_DOMAIN": "localhost", "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        command = [caddy, "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]
        with started(command, https, folder, environment):
            authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
            options = ["-sS", "--retry", "5", "--retry-all-errors", "-o", "/dev/null", "-w", "%{http_code}"]
            headers = ["--cacert", authority, "-H", f"Authorization: Bearer {KEY}"]
            answer = subprocess.run(
                [find("curl"), *options, *headers, f"https://localhost:{https}/jobs"],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert answer.stdout == "200", answer.stderr
