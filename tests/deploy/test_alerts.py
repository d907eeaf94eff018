"""The alert rules of docs/operate/grafana, checked and evaluated by the real promtool."""

import subprocess
from pathlib import Path

from deploy.documented import PAGES
from deploy.programs import find

FOLDER = PAGES / "grafana"


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    command = [find("promtool"), *words]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)


def test_the_rules_are_well_formed() -> None:
    checked = promtool("check", "rules", "preftune-alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "13 rules found" in checked.stdout


def test_each_alert_fires_on_its_fault_and_none_on_a_service_that_is_well() -> None:
    evaluated = promtool("test", "rules", "preftune-alerts.test.yml")
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr


def test_every_alert_is_in_the_evaluation() -> None:
    names = [line.split()[-1] for line in _lines("preftune-alerts.yml") if "- alert:" in line]
    evaluation = "\n".join(_lines("preftune-alerts.test.yml"))
    assert [name for name in names if f"alertname: {name}," not in evaluation] == []
    assert f"value: {len(names)} }}" in evaluation


def _lines(name: str) -> list[str]:
    return Path(FOLDER / name).read_text(encoding="utf-8").splitlines()
