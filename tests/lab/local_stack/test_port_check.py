import socket
from collections.abc import Iterator

import pytest
from support.ports import free_port

from extproc.errors import StackError
from extproc.lab.local_stack.port_check import PortUse, check_ports

HOST = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as made:
        yield made


def test_free_ports_are_free_again_afterwards() -> None:
    uses = [PortUse(HOST, free_port(), "a thing", "--thing")]
    check_ports(uses)
    check_ports(uses)


def test_taken_port_is_named_with_its_purpose_and_its_option(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(StackError) as caught:
        check_ports([PortUse(HOST, free_port(), "fine", "--fine"), PortUse(HOST, port, "a thing", "--thing")])
    assert str(caught.value) == (
        f"port {port} on {HOST} (a thing) cannot be used: Address already in use; --thing chooses another"
    )


def test_port_that_another_envoy_would_share_is_taken() -> None:
    with socket.socket() as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(("0.0.0.0", 0))
        shared.listen()
        with pytest.raises(StackError, match="in use"):
            check_ports([PortUse(HOST, shared.getsockname()[1], "a thing", "--thing")])


def test_all_taken_ports_are_reported_at_once(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(StackError) as caught:
        check_ports([PortUse(HOST, port, "one", "--one"), PortUse(HOST, port, "two", "--two")])
    assert len(str(caught.value).splitlines()) == 2


def test_port_wanted_twice_is_taken_the_second_time() -> None:
    port = free_port()
    with pytest.raises(StackError, match=r"\(two\)") as caught:
        check_ports([PortUse(HOST, port, "one", "--one"), PortUse(HOST, port, "two", "--two")])
    assert "(one)" not in str(caught.value)


def test_host_that_is_not_this_machine_is_no_traceback() -> None:
    with pytest.raises(StackError, match="cannot be used"):
        check_ports([PortUse("192.0.2.1", 8080, "a thing", "--thing")])
