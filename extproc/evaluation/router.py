"""One router of an evaluation: its policy, and what it alone knows of the backends."""

from extproc.evaluation.policies.policy import Candidate, Ended, Policy
from extproc.evaluation.server import Gauges
from extproc.simulation.arrivals import Arrival


class SimulatedRouter:
    """Keeps its own requests in flight, and hands its policy what that may know."""

    def __init__(self, policy: Policy, backends: int) -> None:
        self.policy = policy
        self.candidates = [Candidate() for _ in range(backends)]

    def choose(self, request_id: int, request: Arrival, now_s: float) -> int | None:
        """Place a request; it is in flight from now on."""
        backend = self.policy.choose(request_id, request, self.candidates, now_s)
        if backend is not None:
            candidate = self.candidates[backend]
            candidate.in_flight += 1
            candidate.tokens_in_flight += request.prompt_tokens
        return backend

    def ended(self, request: Ended, now_s: float) -> None:
        """The response is complete."""
        candidate = self.candidates[request.backend]
        candidate.in_flight -= 1
        candidate.tokens_in_flight -= request.arrival.prompt_tokens
        self.policy.ended(request, now_s)

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """A scrape has come back."""
        self.candidates[backend].gauges = gauges
        self.policy.scraped(backend, gauges, now_s)
