"""Routing for a gateway that is given addresses: how many, and which ones after the first."""

from dataclasses import dataclass
from heapq import nsmallest

from extproc.fleet.backend import Backend
from extproc.fleet.view import FleetView
from extproc.policy import guard
from extproc.request.request import Request

SOON_S = 5.0
"""Guessed: backends that are all unknown have just been started, or their discovery has."""


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """A gateway is given at most `max_endpoints` addresses, to try one after the other."""

    max_endpoints: int = 1

    def others(self, view: FleetView, chosen: Backend, request: Request) -> tuple[str, ...]:
        """Return the addresses to try after the chosen one: the best of the same look, by the estimate."""
        count = self.max_endpoints - 1
        if count < 1:
            return ()
        fit, expected_s = guard.fit(view, request.input_tokens)
        best = nsmallest(count + 1, range(len(fit)), key=expected_s.__getitem__)
        others = [fit.backends[number] for number in best if fit.backends[number] is not chosen]
        return tuple(each.endpoint.address for each in others[:count])
