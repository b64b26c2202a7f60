"""What every policy of an evaluation is: one router's rule, with what that router knows of the backends.

A policy is told what happens to its own requests and nothing of those of other routers. What it learns of a
backend beyond that is what a scrape read, some time ago.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from extproc.evaluation.server import Gauges
from extproc.simulation.arrivals import Arrival

NOTHING_SCRAPED = Gauges(0, 0, 0.0, 0, 0, 0.0, 0, 0.0, 0)


HELD = -1
"""Instead of a backend: the request waits at the router."""


@dataclass(slots=True)
class Candidate:
    """What one router knows of one backend: its own requests there, their prompts, the last scrape."""

    in_flight: int = 0
    tokens_in_flight: int = 0
    gauges: Gauges = NOTHING_SCRAPED


class Ended(msgspec.Struct, frozen=True):
    """A request of this router that a backend has answered; times count from its arrival."""

    request_id: int
    arrival: Arrival
    backend: int
    ttft_s: float
    duration_s: float


class Policy:
    """The rule of one router. Only `choose` has to be given; `needs_gauges` is whether it scrapes."""

    needs_gauges = False

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """The index of a backend, None to refuse the request, or HELD; `candidates` has at least one."""
        raise NotImplementedError

    def settled(self) -> Sequence[tuple[int, int | None]]:
        """What became of held requests since the last call: their ids, and a backend or None for each."""
        return ()

    def advance(self, now_s: float) -> float | None:
        """Look after those who are held; when to do so again, None where nobody is."""
        return None

    def first_token(self, backend: int, ttft_s: float, now_s: float) -> None:
        """The response to one of its requests has begun."""

    def ended(self, request: Ended, now_s: float) -> None:
        """The response to one of its requests is complete."""

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """A scrape has come back."""
