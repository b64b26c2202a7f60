import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from extproc.adapters.discovery.source import can_be_a_backend, name_of_address, name_of_pod
from extproc.config.fields import BackendName

CHECK = TypeAdapter(BackendName).validate_python


@given(st.text(max_size=300))
@example("")
@example("-" * 300)
@example("extproc")
@example("a" * 63)
@example("a" * 64)
@example("a_endpoint")
@example("extproc_pool")
def test_every_pod_has_a_name_that_a_cluster_may_have(pod: str) -> None:
    CHECK(name_of_pod(pod))


@given(st.text(max_size=300), st.ip_addresses())
def test_every_address_has_a_name_that_a_cluster_may_have(prefix: str, address: object) -> None:
    CHECK(name_of_address(prefix, str(address)))


def test_a_pod_keeps_its_name_where_that_is_possible() -> None:
    assert name_of_pod("vllm-7c9d8f6b5c-x2x4z") == "vllm-7c9d8f6b5c-x2x4z"


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a-b"), ("a" * 63 + "b", "a" * 63 + "c"), ("a.b", "a..b"), ("extproc", "a")]
)
def test_two_pods_never_share_a_name(one: str, other: str) -> None:
    assert name_of_pod(one) != name_of_pod(other)


def test_ways_to_write_an_address_make_no_difference() -> None:
    assert name_of_address("v", "fd00:0::1") == name_of_address("v", "fd00::1")


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.2", "100.64.0.1", "fd00::12", "2001:db8::1", "::1"])
def test_private_and_local_addresses_are_those_of_backends(address: str) -> None:
    assert can_be_a_backend(address)
