"""Each worker trains on the device it was given, and says so before it takes a job if that is not there."""

import pytest

from core.settings import SettingsError
from worker import device
from worker.device import CPU, choose_device, choose_devices


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_GPU_SIGNS", ("/dev/null",))
    monkeypatch.setattr(device, "probe_gpus", lambda: ["H100", "H200"])


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("wanted", "name", "label"),
    [
        ("auto", "cuda:0", "H100"),
        ("cuda", "cuda:0", "H100"),
        ("cuda:0", "cuda:0", "H100"),
        ("cuda:1", "cuda:1", "H200"),
        ("cpu", "cpu", "CPU"),
    ],
)
def test_a_worker_takes_its_own_device(wanted: str, name: str, label: str) -> None:
    chosen = choose_device(wanted)
    assert (chosen.name, chosen.label) == (name, label)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("wanted", ["cuda:2", "cuda:x", "cuda:-1", "gpu", "", "mps"])
def test_a_device_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(SettingsError, match="PREFTUNE_DEVICE"):
        choose_device(wanted)


@pytest.mark.usefixtures("two_gpus")
def test_several_devices_are_counted_from_the_first() -> None:
    chosen = choose_devices("cuda", 2)
    assert (chosen.name, chosen.count, chosen.label) == ("cuda:0", 2, "2 x H100")
    assert choose_devices("cpu", 2).count == 2
    assert choose_devices("cuda:1", 1) == choose_device("cuda:1")
    with pytest.raises(SettingsError, match="PREFTUNE_NUM_DEVICES: 2 from cuda:1"):
        choose_devices("cuda:1", 2)


def test_without_a_gpu_auto_means_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_GPU_SIGNS", ("/nowhere",))
    monkeypatch.setattr(device, "probe_gpus", lambda: pytest.fail("torch is loaded for nothing"))
    assert choose_device("auto") == CPU
    monkeypatch.setattr(device, "probe_gpus", list)
    with pytest.raises(SettingsError, match="finds 0 CUDA devices"):
        choose_device("cuda")
