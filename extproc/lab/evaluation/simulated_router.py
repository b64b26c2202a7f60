"""One router of an evaluation: its policy, and what it alone knows of the backends."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from extproc.lab.evaluation.simulated_server import Gauges
from extproc.lab.rivals.policy import HELD, Candidate, Ended, Policy
from extproc.lab.traffic.arrivals import Arrival


class SimulatedRouter:
    """Keeps its own requests in flight, and hands its policy what that may know.

    `awake_s` is when it handles what comes at a time: then, or once it does not stand still any more.
    """

    def __init__(
        self, policy: Policy, backends: int, awake_s: Callable[[float], float] = lambda now_s: now_s
    ) -> None:
        self.policy = policy
        self.awake_s = awake_s
        self.held: dict[int, Arrival] = {}
        self._all = [Candidate(number) for number in range(backends)]
        self._members = self._all
        # Most policies do and listen to little; not telling them is a tenth of a request's cost.
        self.may_hold = type(policy).settled is not Policy.settled
        self.hears_first_tokens = type(policy).first_token is not Policy.first_token
        self._hears_ends = type(policy).ended is not Policy.ended

    def members(self, backends: Sequence[int], now_s: float) -> None:
        """Set the backends that may be chosen from now on."""
        self._members = [self._all[number] for number in backends]
        self.policy.members(backends, now_s)

    def choose(self, request_id: int, request: Arrival, now_s: float) -> int | None:
        """Place a request; it is in flight from now on, or held."""
        if not self._members:
            return None
        chosen = self.policy.choose(request_id, request, self._members, now_s)
        if chosen == HELD:
            self.held[request_id] = request
        elif chosen is not None:
            self._take(chosen, request)
        return chosen

    def settled(self) -> Iterator[tuple[int, Arrival, int | None]]:
        """Yield requests that are no longer held, with a backend for each, or None if it was refused."""
        for request_id, backend in self.policy.settled():
            request = self.held.pop(request_id)
            if backend is not None:
                self._take(backend, request)
            yield request_id, request, backend

    def ended(
        self,
        number: int,
        arrival: Arrival,
        backend: int,
        ttft_s: float | None,
        is_failed: bool,
        ended_s: float,
        now_s: float,
    ) -> None:
        """Note that the response was complete, or failed, at `ended_s`."""
        candidate = self._all[backend]
        candidate.in_flight -= 1
        candidate.tokens_in_flight -= arrival.prompt_tokens
        if self._hears_ends:
            ended = Ended(number, arrival, backend, ttft_s, ended_s - arrival.at_s, is_failed)
            self.policy.ended(ended, now_s)

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """Note that a scrape has come back."""
        self._all[backend].gauges = gauges
        self.policy.scraped(backend, gauges, now_s)

    def _take(self, backend: int, request: Arrival) -> None:
        candidate = self._all[backend]
        candidate.in_flight += 1
        candidate.tokens_in_flight += request.prompt_tokens


class SentRequest(msgspec.Struct, gc=False):
    """An attempt that its router has sent to a backend, and that has not ended."""

    number: int
    arrival: Arrival
    router: SimulatedRouter
    backend: int
    sent_s: float
    noise: float
    first_token_s: float | None = None

    def late_s(self, first_token_s: float, overhead_s: float) -> float:
        """Return by how much noise makes its first token, and all after it, come later."""
        return 0.0 if self.noise == 1 else (self.noise - 1) * (first_token_s + overhead_s - self.sent_s)
