"""Ports for servers that start in a moment, which nobody else is given meanwhile.

A port that the kernel chooses may be its choice again, for the next server or a client's end, until somebody
listens there. Those below are never its choice (`net.ipv4.ip_local_port_range`), and chosen here once: until
this process ends, a name in Linux's abstract namespace keeps them from other runs of the tests.
"""

import itertools
import random
import socket
from collections.abc import Iterable

MOST = 8
"""This many neighbours can be had at once."""
_BASES = range(12_000, 32_000, MOST)
_names: list[socket.socket] = []
_bases = itertools.cycle(random.sample(_BASES, len(_BASES)))


def free_port() -> int:
    """A port of 127.0.0.1 that is free."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """This many neighbouring ones."""
    assert count <= MOST
    bases = itertools.islice(_bases, len(_BASES))
    return next(ports for base in bases if _is_ours(base) and _are_free(ports := range(base, base + count)))


def _is_ours(base: int) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0extproc-test-ports-{base}")
    except OSError:
        name.close()
        return False
    _names.append(name)
    return True


def _are_free(ports: Iterable[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
