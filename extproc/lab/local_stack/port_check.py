"""Whether the ports that the local stack needs are free, asked before anything is started.

Envoy has to be protected from itself here: its listeners share a port (SO_REUSEPORT), so that a second
Envoy would start without a word and take a part of the first one's connections.
"""

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from extproc.errors import StackError


@dataclass(frozen=True, slots=True)
class PortUse:
    """A port that is about to be listened on: what for, and which option names another one."""

    host: str
    port: int
    purpose: str
    option: str


def check_ports(uses: Iterable[PortUse]) -> None:
    """Raise StackError that names every port which cannot be listened on, those wanted twice included."""
    faults = []
    with ExitStack() as stack:  # all are held until all are tried
        for use in uses:
            try:
                stack.enter_context(_listen(use))
            except OSError as error:
                faults.append(
                    f"port {use.port} on {use.host} ({use.purpose}) cannot be used: {error.strerror}; "
                    f"{use.option} chooses another"
                )
    if faults:
        raise StackError("\n".join(faults))


def _listen(use: PortUse) -> socket.socket:
    family = socket.AF_INET6 if ":" in use.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended does not count
        listener.bind((use.host, use.port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
