"""Traffic of others on the servers that `extproc profile` is about to load: it will have to wait."""

import time

from extproc.adapters.http.fleet_state import fetch_state
from extproc.adapters.vllm.exposition import ask_signals
from extproc.errors import StackError
from extproc.lab.load.profiled_servers import Servers

LOOKS = 5
PAUSE_S = 0.2
"""Guessed: vLLM's gauges lag by up to half a second, and in light traffic a server is idle now and then."""


def requests_of_others(servers: Servers, pause_s: float = PAUSE_S) -> float:
    """Return the most requests that the servers held together in a second, before there is any load of ours.

    A server that does not tell counts as idle.
    """
    most = _now(servers)
    for _ in range(LOOKS - 1):
        time.sleep(pause_s)
        most = max(most, _now(servers))
    return most


def _now(servers: Servers) -> float:
    if servers.state_url:
        try:
            return sum(backend.load for backend in fetch_state(servers.state_url).backends)
        except StackError:
            return 0.0
    seen = [ask_signals(f"http://{backend.address}") for backend in servers.backends]
    return sum(signals.running + signals.waiting for signals in seen if signals is not None)
