"""One router of an evaluation: its policy, and what it alone knows of the backends."""

from collections.abc import Iterator

from extproc.evaluation.policies.policy import HELD, Candidate, Ended, Policy
from extproc.evaluation.server import Gauges
from extproc.simulation.arrivals import Arrival


class SimulatedRouter:
    """Keeps its own requests in flight, and hands its policy what that may know."""

    def __init__(self, policy: Policy, backends: int) -> None:
        self.policy = policy
        self.candidates = [Candidate() for _ in range(backends)]
        self.held: dict[int, Arrival] = {}

    def choose(self, request_id: int, request: Arrival, now_s: float) -> int | None:
        """Place a request; it is in flight from now on, or held."""
        backend = self.policy.choose(request_id, request, self.candidates, now_s)
        if backend == HELD:
            self.held[request_id] = request
        elif backend is not None:
            self._take(backend, request)
        return backend

    def settled(self) -> Iterator[tuple[int, Arrival, int | None]]:
        """Requests that are held no more, and a backend for each, or None where it was refused."""
        for request_id, backend in self.policy.settled():
            request = self.held.pop(request_id)
            if backend is not None:
                self._take(backend, request)
            yield request_id, request, backend

    def ended(self, request: Ended, now_s: float) -> None:
        """The response is complete."""
        candidate = self.candidates[request.backend]
        candidate.in_flight -= 1
        candidate.tokens_in_flight -= request.arrival.prompt_tokens
        self.policy.ended(request, now_s)

    def _take(self, backend: int, request: Arrival) -> None:
        candidate = self.candidates[backend]
        candidate.in_flight += 1
        candidate.tokens_in_flight += request.prompt_tokens

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """A scrape has come back."""
        self.candidates[backend].gauges = gauges
        self.policy.scraped(backend, gauges, now_s)
