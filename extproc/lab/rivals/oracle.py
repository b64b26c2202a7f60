"""The oracle: it sees every engine as it is, knows how long every output will be, and looks ahead.

For each backend that may be the earliest it runs a copy of the engine until the new request has its first
token, and takes the earliest. It sees all requests at once, those of other routers included. It does not know
later arrivals: it is greedy, the bound of what a policy can do by choosing well for the request at
hand. In lasting overload that is no bound on goodput: a policy that refuses requests, or lets some backends
drown, keeps others in time. The shedding oracle refuses requests: those that would be late on every backend.

Where requests wait, a copy is kept that has run ahead to the iteration in which the last of them is admitted:
engines serve in order of arrival, so a new one finds it in that state. It may be off by one iteration, since
the new request might have been admitted together with the last. Where none waits the server itself is looked
at. Copies are what the oracle takes its time for.
"""

import math
from collections.abc import Sequence

from extproc.lab.evaluation.idle_fleet import IdleFleet
from extproc.lab.evaluation.simulated_server import Server
from extproc.lab.rivals.policy import Candidates, Policy
from extproc.lab.traffic.arrivals import Arrival

_PROBE = "the oracle's question"
_ROUNDING_S = 1e-9
"""More than what sums of times may be off by."""


class Oracle(Policy):
    """Chooses the backend with the earliest true first token; of equal ones the first."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._ahead = [_ahead_of(server) for server in servers]

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Return the backend at which the request would have its first token first."""
        self._catch_up(now_s)
        backend, first_token_s = self._earliest(request, candidates, now_s)
        if self.is_refused(request, first_token_s):
            return None
        ahead = self._ahead[backend]
        if ahead is self._servers[backend]:
            ahead = self._ahead[backend] = ahead.copied()
        ahead.submit(str(request_id), request.prompt_tokens, request.output_tokens, now_s, request.content)
        _run_ahead(ahead)
        return backend

    def is_refused(self, request: Arrival, first_token_s: float) -> bool:
        """Return whether to refuse a request that would have its first token then, at the earliest."""
        return False

    def _earliest(self, request: Arrival, candidates: Candidates, now_s: float) -> tuple[int, float]:
        """Return the best backend, and when the first token would come from there."""
        up = [each for each in candidates if self._servers[each.backend].is_up] or candidates
        best, earliest_s = up[0].backend, math.inf
        bounds = ((not_before_s(self._ahead[each.backend], request, now_s), each.backend) for each in up)
        for bound_s, backend in sorted(bounds):
            if bound_s > earliest_s + _ROUNDING_S:
                break
            ahead = self._ahead[backend]
            overhead_s = ahead.overhead_s(request.prompt_tokens)
            first_token_s = first_token_at(ahead, request, now_s, earliest_s - overhead_s) + overhead_s
            if (first_token_s, backend) < (earliest_s, best):
                best, earliest_s = backend, first_token_s
        return best, earliest_s

    def _catch_up(self, now_s: float) -> None:
        """Copy anew what lies in the past, and what got requests from elsewhere."""
        for index, (server, ahead) in enumerate(zip(self._servers, self._ahead, strict=True)):
            is_past = ahead.run_ends_s is None or ahead.run_ends_s < now_s
            if is_past or ahead is server or ahead.submitted != server.submitted:
                self._ahead[index] = _ahead_of(server)


class SheddingOracle(Oracle):
    """The oracle that refuses a request which would be late on every backend.

    A request is late if its first token comes more than `delay_limit_s` later than on the fastest idle
    machine.
    """

    def __init__(self, servers: Sequence[Server], delay_limit_s: float) -> None:
        super().__init__(servers)
        self._idle = IdleFleet([server.spec for server in servers])
        self._delay_limit_s = delay_limit_s

    def is_refused(self, request: Arrival, first_token_s: float) -> bool:
        """Return whether it would be late."""
        idle_s = self._idle.fastest_ttft_s(request.prompt_tokens)
        return first_token_s - request.at_s - idle_s > self._delay_limit_s


def ttft_if_sent(server: Server, request: Arrival, now_s: float) -> float:
    """Return the TTFT that `request` would have if it were sent there now; the server is not changed."""
    first_token_s = first_token_at(server, request, now_s, math.inf)
    return first_token_s - now_s + server.overhead_s(request.prompt_tokens)


def first_token_at(server: Server, request: Arrival, now_s: float, give_up_at_s: float) -> float:
    """Return when `request`, submitted now, gets its first token there; inf if after `give_up_at_s`."""
    tried = server.copied()
    tried.submit(_PROBE, request.prompt_tokens, request.output_tokens, now_s, request.content)
    while tried.run_ends_s is not None and tried.run_ends_s <= give_up_at_s:
        ends_s = tried.run_ends_s
        if _PROBE in tried.end_run(ends_s).begun:
            return ends_s
    return math.inf


def not_before_s(server: Server, request: Arrival, now_s: float) -> float:
    """Return a time before which `request`, submitted now, would not have its first token there.

    The iteration under way is not shortened, and another one computes what of the prompt cannot be cached.
    """
    run, profile = server.engine.run, server.spec.profile
    begins_s = now_s
    if run is not None and run.steps == 1 and server.run_ends_s is not None:
        begins_s = server.run_ends_s
    cached_tokens = len(request.content) * server.spec.limits.block_size
    tokens = max(1, request.prompt_tokens - cached_tokens)
    computing_s = (profile.base_step_s + tokens * profile.prefill_token_s) / profile.speed
    return begins_s + computing_s + server.overhead_s(request.prompt_tokens)


def _ahead_of(server: Server) -> Server:
    """Return a copy that has run ahead, or the server where none waits."""
    if server.engine.waiting or server.engine.stuck:
        return _run_ahead(server.copied())
    return server


def _run_ahead(server: Server) -> Server:
    """Return the server at the iteration that admits the last waiting request."""
    while server.run_ends_s is not None and (server.engine.waiting or server.engine.stuck):
        server.end_run(server.run_ends_s)
    return server
