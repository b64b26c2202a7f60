"""The members of the fleet, and those that are up: backends that join, leave or fail while an evaluation
goes on.

A backend that leaves is taken from the routers' lists and finishes what it has. One that fails loses its
requests and its KV cache, and refuses connections until it is back. A readiness probe or a health check
notices a failure only after `NOTICED_AFTER_S`; until then it is up to the routers.
"""

from collections.abc import Callable, Sequence
from functools import partial

from extproc.lab.evaluation.simulated_router import SimulatedRouter
from extproc.lab.evaluation.simulated_server import Server

NOTICED_AFTER_S = 10.0
"""Guessed: between an Envoy health check at its usual settings and a kubelet's readiness probe, which by
default takes three periods of 10 s."""

Plan = Callable[[float, Callable[[float], None]], None]


class FleetChanges:
    """Tells all routers of the same changes at the same time; `fail` ends the requests of a backend."""

    def __init__(
        self,
        servers: Sequence[Server],
        routers: Sequence[SimulatedRouter],
        fail: Callable[[int, float], None],
    ) -> None:
        self._servers = servers
        self._routers = routers
        self._fail = fail
        self._out = {number for number, server in enumerate(servers) if server.spec.joins_s > 0}

    def plan(self, plan: Plan) -> None:
        """Plan all that will happen to the backends, and tell the routers which are there at the start."""
        for backend, server in enumerate(self._servers):
            spec = server.spec
            if spec.joins_s > 0:
                plan(spec.joins_s, partial(self._let_in, backend))
            if spec.leaves_s is not None:
                plan(spec.leaves_s, partial(self._take_out, backend))
            if spec.fails_s is not None:
                plan(spec.fails_s, partial(self._go_down, backend))
                plan(spec.fails_s + NOTICED_AFTER_S, partial(self._notice, backend))
                plan(spec.recovers_s, partial(self._come_back, backend))
        self._update_routers(0.0)

    def _let_in(self, backend: int, now_s: float) -> None:
        self._out.discard(backend)
        self._update_routers(now_s)

    def _take_out(self, backend: int, now_s: float) -> None:
        self._out.add(backend)
        self._update_routers(now_s)

    def _go_down(self, backend: int, now_s: float) -> None:
        self._servers[backend].fail(now_s)
        self._fail(backend, now_s)

    def _notice(self, backend: int, now_s: float) -> None:
        if not self._servers[backend].is_up:
            self._take_out(backend, now_s)

    def _come_back(self, backend: int, now_s: float) -> None:
        self._servers[backend].is_up = True
        self._let_in(backend, now_s)

    def _update_routers(self, now_s: float) -> None:
        members = [number for number in range(len(self._servers)) if number not in self._out]
        for router in self._routers:
            router.members(members, now_s)
