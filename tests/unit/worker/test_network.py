"""The address in the private network: one of this machine's own, with the interface that has it."""

import pytest

from core.settings import Settings, SettingsError
from worker.network import network_of, seat_of


def test_without_an_address_no_job_on_several_nodes_is_taken() -> None:
    assert network_of(Settings()) is None


def test_addresses_of_loopback_are_on_it() -> None:
    for address in ("127.0.0.1", "127.0.0.2"):
        network = network_of(Settings(node_address=address, node_port=4321))
        assert network is not None
        assert (network.address, network.port, network.interface) == (address, 4321, "lo")


@pytest.mark.parametrize(
    ("address", "fault"),
    [("host-a", "is no IP address"), ("192.0.2.7", "is no address of this machine; it has lo 127.0.0.1/8")],
)
def test_an_address_that_is_not_its_own_is_refused(address: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=f"PREFTUNE_NODE_ADDRESS: {address} {fault}"):
        network_of(Settings(node_address=address))


def test_each_process_has_a_seat_of_its_own_and_holds_it_for_two_looks_of_an_idle_worker() -> None:
    settings = Settings(node_address="127.0.0.1", poll_seconds=45)
    network = network_of(settings)
    assert network is not None
    one, other = seat_of(network, settings), seat_of(network, settings)
    assert one.member != other.member
    assert one.hold_seconds == 90
