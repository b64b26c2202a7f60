"""One router of an evaluation: its policy, and what it alone knows of the backends."""

from collections.abc import Sequence

from extproc.evaluation.policies.policy import Candidate, Ended, Policy
from extproc.evaluation.server import Gauges
from extproc.simulation.arrivals import Arrival


class SimulatedRouter:
    """Keeps its own requests in flight, and hands its policy what that may know."""

    def __init__(self, policy: Policy, backends: int) -> None:
        self.policy = policy
        self._all = [Candidate(number) for number in range(backends)]
        self._members = self._all

    def members(self, backends: Sequence[int], now_s: float) -> None:
        """Who may be chosen from now on."""
        self._members = [self._all[number] for number in backends]
        self.policy.members(backends, now_s)

    def choose(self, request_id: int, request: Arrival, now_s: float) -> int | None:
        """Place a request; it is in flight from now on."""
        if not self._members:
            return None
        chosen = self.policy.choose(request_id, request, self._members, now_s)
        if chosen is not None:
            candidate = self._all[chosen]
            candidate.in_flight += 1
            candidate.tokens_in_flight += request.prompt_tokens
        return chosen

    def ended(self, request: Ended, now_s: float) -> None:
        """The response is complete, or has failed."""
        candidate = self._all[request.backend]
        candidate.in_flight -= 1
        candidate.tokens_in_flight -= request.arrival.prompt_tokens
        self.policy.ended(request, now_s)

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """A scrape has come back."""
        self._all[backend].gauges = gauges
        self.policy.scraped(backend, gauges, now_s)
