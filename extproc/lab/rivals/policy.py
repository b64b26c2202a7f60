"""The interface of every policy of an evaluation: one router's rule, with what that router knows of the
backends.

A policy gets the events of its own requests, and none of those of other routers. Beyond that it
learns of a backend only the content of an earlier scrape.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from extproc.lab.evaluation.simulated_server import Gauges
from extproc.lab.traffic.arrivals import Arrival

NOTHING_SCRAPED = Gauges(0, 0, 0.0, 0, 0, 0.0, 0, 0.0, 0, 0, 0)

HELD = -1
"""Instead of a backend: the request waits at the router."""


@dataclass(slots=True, eq=False)
class Candidate:
    """One router's knowledge of one backend: its own requests there, their prompts, the last scrape.

    `backend` is the backend's number in the fleet, which is not its place among the candidates of the moment.
    """

    backend: int
    in_flight: int = 0
    tokens_in_flight: int = 0
    gauges: Gauges = NOTHING_SCRAPED


Candidates = Sequence[Candidate]


class Ended(msgspec.Struct, frozen=True):
    """A request of this router that has ended; times count from its arrival.

    One that failed, because its backend did, has no `ttft_s`, or had one and was cut off.
    """

    request_id: int
    arrival: Arrival
    backend: int
    ttft_s: float | None
    duration_s: float
    is_failed: bool = False


class Policy(ABC):
    """The rule of one router. Only `choose` has to be given; `needs_gauges` is whether it scrapes."""

    needs_gauges = False

    @abstractmethod
    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Return the `backend` of one of at least one candidate, None to refuse the request, or HELD."""

    def settled(self) -> Sequence[tuple[int, int | None]]:
        """Return held requests that were settled since the last call: their ids, and a backend or None."""
        return ()

    def retry_after_s(self, request_id: int) -> float | None:
        """Return the `Retry-After` of a refused client; asked once for each refusal."""
        return None

    def advance(self, now_s: float) -> float | None:
        """Look after held requests; returns when to do so again, None if none is held."""
        return None

    def members(self, backends: Sequence[int], now_s: float) -> None:
        """Set the fleet's backends; called at the start, and at every change."""

    def first_token(self, request_id: int, backend: int, ttft_s: float, now_s: float) -> None:
        """Note that the response to one of its requests has begun."""

    def ended(self, request: Ended, now_s: float) -> None:
        """Note that the response to one of its requests is complete, or has failed."""

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """Note that a scrape has come back."""

    def take_reports(self) -> Sequence[Any]:
        """Return what it reports to the other routers since the last call, in whatever form they know."""
        return ()

    def heard(self, router: int, reports: Sequence[Any], now_s: float) -> None:
        """Note what another router has reported."""

    def scrape_refused(self, backend: int, now_s: float) -> None:
        """Note that a backend has refused the connection of a scrape."""


_BLOCK = 256


class Draws:
    """Uniform numbers from a generator of its own, drawn in blocks: a fifth of the time of single draws."""

    __slots__ = ("_block", "_rng")

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def below(self, count: int) -> int:
        """Return a whole number from 0 to `count` - 1."""
        if not self._block:
            self._block = self._rng.random(_BLOCK)[::-1].tolist()
        return int(self._block.pop() * count)
