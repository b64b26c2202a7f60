"""Routers that report to each other what they send, as replicas of the sidecar do."""

from collections.abc import Callable, Sequence
from itertools import permutations

from extproc.lab.evaluation.simulated_router import SimulatedRouter

REPORT_INTERVAL_S = 0.02
"""As long as a sidecar gathers its reports (`adapters.replica_link`); datagrams take under 1 ms."""

Plan = Callable[[float, Callable[[float], None]], None]


class Reports:
    """Hands on what each router has reported, again and again."""

    def __init__(self, routers: Sequence[SimulatedRouter], plan: Plan) -> None:
        self._routers = routers
        self._plan = plan

    def begin(self) -> None:
        """Plan the first time, where there is more than one router."""
        if len(self._routers) > 1:
            self._plan(REPORT_INTERVAL_S, self._hand_on)

    def _hand_on(self, now_s: float) -> None:
        reports = [router.policy.take_reports() for router in self._routers]
        for (number, _), (_, other) in permutations(enumerate(self._routers), 2):
            other.policy.heard(number, reports[number], now_s)
        self._plan(now_s + REPORT_INTERVAL_S, self._hand_on)
