"""Bounds on the connections to the sidecar's own HTTP server, which may come from anywhere.

aiohttp waits for a first request, and for a slow reader, for ever. So a connection without a request is
closed after a time, and where there are too many, those that were heard of the longest ago make room: one
that has just connected, such as a probe, is served.
"""

import asyncio
from dataclasses import dataclass

from aiohttp import web

SWEEP_S = 1.0


@dataclass(frozen=True, slots=True)
class HttpTimes:
    """How long a client may take, in seconds: for its first request, and from one to the next."""

    first_request_s: float = 10.0  # guessed
    next_request_s: float = 75.0  # borrowed: aiohttp's and nginx's time for keeping a connection


DEFAULT_TIMES = HttpTimes()


class HttpConnections:
    """Makes the protocol of each connection of `server`, when called, and closes those that are too many."""

    def __init__(self, server: web.Server, max_connections: int, times: HttpTimes = DEFAULT_TIMES) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._max_connections = max_connections
        self._times = times
        self._heard_s: dict[web.RequestHandler, float] = {}  # the one heard of the longest ago first
        self._have_asked: set[web.RequestHandler] = set()
        self._is_sweep_due = False
        self._timer = self._loop.call_later(SWEEP_S, self._sweep_again)

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a connection that was accepted."""
        if not self._is_sweep_due:
            self._is_sweep_due = True
            self._loop.call_soon(self._loop.call_soon, self._sweep)  # then the connection is made, and counts
        return self._server()

    def heard(self, connection: web.RequestHandler) -> None:
        """Note a request."""
        self._heard_s.pop(connection, None)
        self._heard_s[connection] = self._loop.time()
        self._have_asked.add(connection)

    def stop(self) -> None:
        """Look at the connections no more."""
        self._timer.cancel()

    def _sweep_again(self) -> None:
        self._sweep()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep_again)

    def _sweep(self) -> None:
        self._is_sweep_due = False
        now_s = self._loop.time()
        heard_s = self._followed(now_s)
        excess = len(heard_s) - self._max_connections
        for number, (connection, at_s) in enumerate(heard_s.items()):
            times = self._times
            has_asked = connection in self._have_asked
            patience_s = times.next_request_s if has_asked else times.first_request_s
            if (number < excess or now_s - at_s > patience_s) and connection.transport is not None:
                connection.transport.abort()

    def _followed(self, now_s: float) -> dict[web.RequestHandler, float]:
        """Return when each open connection was heard of; a new one is heard of now."""
        is_open = {
            each: None
            for each in self._server.connections
            if each.transport is not None and not each.transport.is_closing()
        }
        self._heard_s = {each: at_s for each, at_s in self._heard_s.items() if each in is_open}
        self._heard_s |= {each: now_s for each in is_open if each not in self._heard_s}
        self._have_asked &= self._heard_s.keys()
        return self._heard_s
