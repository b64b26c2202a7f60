import pytest

from extproc.errors import ConfigError
from extproc.fleet.endpoint import Endpoint
from extproc.lab.load.profiled_servers import Servers, parse_servers


def test_backends_are_named_in_order() -> None:
    assert parse_servers("http://10.0.0.1:8000, http://gpu-2", "", "") == Servers(
        backends=(Endpoint("vllm-1", "10.0.0.1", 8000), Endpoint("vllm-2", "gpu-2", 80))
    )


def test_a_stack_is_its_envoy_and_its_sidecar() -> None:
    assert parse_servers("", "http://h:8080/", "http://h:9003") == Servers(
        stack_url="http://h:8080", state_url="http://h:9003"
    )


@pytest.mark.parametrize(
    ("backends", "stack", "state"),
    [
        ("", "", ""),
        (" , ", "", ""),
        ("http://a", "http://b", "http://c"),
        ("http://a", "", "http://c"),
        ("", "http://b", ""),
        ("", "", "http://c"),
    ],
)
def test_neither_or_both_kinds_are_refused(backends: str, stack: str, state: str) -> None:
    with pytest.raises(ConfigError, match="give either --backends"):
        parse_servers(backends, stack, state)


@pytest.mark.parametrize(
    ("backends", "stack", "option"),
    [
        ("http://a,https://b", "", "--backends: 'https://b'"),
        ("http://a,http://a/", "", "every server must be given once"),
        ("", "localhost:8080", "--stack: 'localhost:8080'"),
    ],
)
def test_a_bad_address_is_named(backends: str, stack: str, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        parse_servers(backends, stack, "http://c" if stack else "")
