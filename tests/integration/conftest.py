import socket
from collections.abc import Iterator

import pytest
from support.stack_fixtures import shared_stack, stack, start_envoy, start_sim

__all__ = ["shared_stack", "stack", "start_envoy", "start_sim"]


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port of this test's own on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
