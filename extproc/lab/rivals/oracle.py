"""The oracle: it sees every engine as it is, knows how long every output will be, and looks ahead.

For each backend it runs a copy of the engine until the new request has its first token, and takes the
earliest. It sees all requests at once, those of other routers included. What it does not know is who comes
later: it is greedy, the bound of what a policy can do by choosing well for the request at hand. In lasting
overload that is no bound on goodput: who refuses requests, or lets some backends drown, keeps others in time.

Where requests wait, a copy is kept that has run ahead to the iteration in which the last of them is admitted:
engines serve in order of arrival, so a new one finds it in that state. It may be off by one iteration, since
the new request might have been admitted together with the last.
"""

import math
from collections.abc import Sequence

from extproc.lab.evaluation.simulated_server import Server
from extproc.lab.rivals.policy import Candidate, Policy
from extproc.lab.traffic.arrivals import Arrival

_PROBE = "the oracle's question"


class Oracle(Policy):
    """Chooses the backend with the earliest true first token; of equal ones the first."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._ahead = [_run_ahead(server.copied()) for server in servers]

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """The backend at which the request would have its first token first."""
        self._catch_up(now_s)
        up = [each for each in candidates if self._servers[each.backend].is_up] or candidates
        best, earliest_s = up[0], math.inf
        for candidate in sorted(up, key=lambda each: self._ahead[each.backend].run_ends_s or 0.0):
            first_token_s = first_token_at(self._ahead[candidate.backend], request, now_s, earliest_s)
            if (first_token_s, candidate.backend) < (earliest_s, best.backend):
                best, earliest_s = candidate, first_token_s
        ahead = self._ahead[best.backend]
        ahead.submit(str(request_id), request.prompt_tokens, request.output_tokens, now_s, request.content)
        _run_ahead(ahead)
        return best.backend

    def _catch_up(self, now_s: float) -> None:
        """Copy anew what lies in the past, and what got requests from elsewhere."""
        for index, (server, ahead) in enumerate(zip(self._servers, self._ahead, strict=True)):
            is_past = ahead.run_ends_s is None or ahead.run_ends_s < now_s
            if is_past or ahead.submitted != server.submitted:
                self._ahead[index] = _run_ahead(server.copied())


def first_token_at(server: Server, request: Arrival, now_s: float, give_up_at_s: float) -> float:
    """When `request`, submitted now, would have its first token there; inf if after `give_up_at_s`."""
    tried = server.copied()
    tried.submit(_PROBE, request.prompt_tokens, request.output_tokens, now_s, request.content)
    while tried.run_ends_s is not None and tried.run_ends_s <= give_up_at_s:
        ends_s = tried.run_ends_s
        if _PROBE in tried.end_run(ends_s).begun:
            return ends_s
    return math.inf


def _run_ahead(server: Server) -> Server:
    """The server at the iteration that admits the last of those who wait."""
    while server.run_ends_s is not None and (server.engine.waiting or server.engine.stuck):
        server.end_run(server.run_ends_s)
    return server
