from typing import Any

import msgspec
import pytest
from support.kubernetes_api import endpoint, endpoint_slice

from extproc.adapters.discovery.endpoint_slices import EndpointSlice, backends_of
from extproc.config.discovery_stage import KubernetesDiscovery
from extproc.fleet.endpoint import Endpoint


def found(*slices: Any, **fields: Any) -> list[Endpoint]:
    settings = KubernetesDiscovery(**({"kind": "kubernetes", "selector": "a=b"} | fields))
    return backends_of([msgspec.convert(one, EndpointSlice) for one in slices], settings)


def hosts(*slices: Any, **fields: Any) -> list[str]:
    return [backend.host for backend in found(*slices, **fields)]


@pytest.mark.parametrize(
    ("ready", "terminating", "is_found"),
    [
        (True, False, True),
        (None, None, True),
        (True, None, True),
        (None, False, True),
        (False, False, False),
        (False, True, False),
        (True, True, False),
        (None, True, False),
    ],
)
def test_ready_and_not_terminating_pods_count(
    ready: bool | None, terminating: bool | None, is_found: bool
) -> None:
    assert bool(found(endpoint_slice("a", [endpoint("p", "10.0.0.1", ready, terminating)]))) is is_found


def test_conditions_may_be_missing() -> None:
    one = endpoint("p", "10.0.0.1")
    del one["conditions"]
    assert hosts(endpoint_slice("a", [one])) == ["10.0.0.1"]


def test_a_pod_with_addresses_of_both_families_counts_once() -> None:
    slices = [
        endpoint_slice("six", [endpoint("p", "fd00::1"), endpoint("only-six", "fd00::2")], family="IPv6"),
        endpoint_slice("four", [endpoint("p", "10.0.0.1")]),
    ]
    assert hosts(*slices) == ["fd00::2", "10.0.0.1"]
    assert hosts(*slices, family="ipv4") == ["10.0.0.1"]
    assert hosts(*slices, family="ipv6") == ["fd00::2", "fd00::1"]


def test_an_endpoint_that_is_in_two_slices_counts_once_and_is_ready_if_one_says_so() -> None:
    stale = endpoint_slice("a", [endpoint("p", "10.0.0.1", ready=False)])
    fresh = endpoint_slice("b", [endpoint("p", "10.0.0.1")])
    assert hosts(stale, fresh) == hosts(fresh, stale) == ["10.0.0.1"]


def test_two_pods_of_one_address_and_port_are_one_server() -> None:
    pods = [endpoint("p", "10.0.0.1"), endpoint("q", "10.0.0.1")]
    assert [backend.name for backend in found(endpoint_slice("a", pods))] == ["p"]


@pytest.mark.parametrize(
    ("wanted", "port"), [(None, 9000), ("http", 8000), ("metrics", 9000), (7000, 7000), ("grpc", None)]
)
def test_the_port_is_the_wanted_one(wanted: int | str | None, port: int | None) -> None:
    one = endpoint_slice("a", [endpoint("p", "10.0.0.1")])
    one["ports"] = [
        {"name": "udp", "port": 53, "protocol": "UDP"},
        {"name": "metrics", "port": 9000, "protocol": "TCP"},
        {"name": "http", "port": 8000},
    ]
    assert [backend.port for backend in found(one, port=wanted)] == ([] if port is None else [port])


def test_an_endpoint_that_is_no_pod_is_named_after_its_address() -> None:
    one = endpoint("p", "10.0.0.1")
    one["targetRef"] = None
    assert [backend.name for backend in found(endpoint_slice("a", [one]))] == ["endpoint-10-0-0-1"]


@pytest.mark.parametrize("addresses", [[], ["host.example"], [""], ["10.0.0.1/8"], ["169.254.169.254"]])
def test_an_address_that_is_none_is_left_out(addresses: list[str]) -> None:
    odd = endpoint("odd", "") | {"addresses": addresses}
    assert hosts(endpoint_slice("a", [odd, endpoint("p", "10.0.0.1")])) == ["10.0.0.1"]


@pytest.mark.parametrize("port", [0, -1, 65536, 99_999_999])
def test_a_port_that_there_is_not_is_no_backends(port: int) -> None:
    odd = endpoint_slice("a", [endpoint("p", "10.0.0.1")]) | {"ports": [{"port": port}]}
    assert found(odd, endpoint_slice("b", [endpoint("q", "10.0.0.2")])) == found(
        endpoint_slice("b", [endpoint("q", "10.0.0.2")])
    )


def test_slices_of_names_and_slices_without_anything_are_left_out() -> None:
    names = endpoint_slice("names", [endpoint("p", "10.0.0.1")], family="FQDN")
    empty = endpoint_slice("empty", []) | {"endpoints": None, "ports": None}
    assert found(names, empty) == []


def test_what_the_configuration_says_of_all_is_said_of_each() -> None:
    slices = endpoint_slice("a", [endpoint("p", "10.0.0.1")])
    (backend,) = found(slices, models=["m"], max_num_seqs=3)
    assert (backend.models, backend.max_num_seqs) == (frozenset({"m"}), 3)
