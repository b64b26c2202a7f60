"""When a backend takes no more requests, and the other rules of the fleet, as they are configured."""

from dataclasses import dataclass, field
from math import inf

from extproc.fleet.adaptive_limit import AdaptiveRule
from extproc.fleet.bounds import Seconds, Share
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.prediction_record import TrustRule
from extproc.fleet.signals import ScrapeRule
from extproc.fleet.zone import ZoneRule

RESUME_SHARE = 0.8
"""Borrowed from the deployment that this project comes from: a backend comes back at it."""

LASTING_S = 10.0
"""Guessed: a queue that has been there this long will not empty by itself."""

SETTLED_S = 1.0
"""Guessed: in one that is younger they may only wait for the next iteration."""


@dataclass(frozen=True, slots=True)
class SaturationRule:
    """A backend holds at most `max_active` requests; with `adaptive` that is where its own limit begins.

    It is out from its limit on, and comes back at `resume_load`, or at `resume_share` of its limit where that
    is None, so that it does not flap. The resume load moves with the limit (`fleet.adaptive_limit`).

    With `is_only_places` a limit that was found by itself says how many are served at once, and more may wait
    there for as long as in a queue that stands (`WaitingRule`), up to the largest limit that may be found.
    """

    max_active: int = 100  # measured: beyond it the origin's TTFT was queue-bound
    resume_load: int | None = None
    adaptive: AdaptiveRule | None = None
    resume_share: float = RESUME_SHARE
    is_only_places: bool = False

    @property
    def most(self) -> int:
        """The most requests in flight, whatever limit is found."""
        return self.max_active if self.adaptive is None else self.adaptive.max_active

    def closes_above(self, load: float, closed_above: float, max_active: int) -> float:
        """Return the load above which a backend takes no request, after its load or its limit has changed.

        It starts with `opened()`: the last load at which one more request does not exceed the limit. Once
        that is passed the backend is saturated, and the bound is the resume load until that is reached.
        """
        return self.resumes_at(max_active) if load > closed_above else self.opened(max_active)

    def opened(self, max_active: int) -> int:
        """Return the bound of a backend that is not saturated."""
        return max_active - 1

    def resumes_at(self, max_active: int) -> int:
        """Return the load at which a backend with this limit comes back."""
        if self.resume_load is not None:
            return self.resume_load
        return min(max_active - 1, int(max_active * self.resume_share))


@dataclass(frozen=True, slots=True)
class WaitingRule:
    """The longest wait that is allowed in a young queue, and the share of it in a queue that stands.

    A server answers no more for having a longer queue: once all its places are taken, each request that joins
    only makes those behind wait. A queue that soon empties again is a burst, and smoothing bursts is what
    queues are for; one that stands has no use at all. So the wait that is allowed shrinks, the longer
    requests have been waiting there. This is the thought of CoDel (Nichols and Jacobson, "Controlling Queue
    Delay", 2012), in the form that Maurer gave it for requests ("Fail at Scale", 2015).

    The wait is the number of requests that wait by the server's own last scrape, and those sent since, by the
    learned time from one to the next (`fleet.pace`). A server whose last scrape found none waiting is never
    closed for this, however slow it is believed to be: so all of it gets better while nothing is sent.
    """

    burst_s: Seconds = 2.0  # the SLO that the benchmarks hold the policy to
    standing_share: Share = 0.5  # tried on tuning scenarios: one second is enough to keep a server busy

    @property
    def standing_s(self) -> float:
        """The longest wait in a queue that stands."""
        return self.standing_share * self.burst_s

    def allowed_s(self, queued_s: float) -> float:
        """Return the longest wait in a queue of this age."""
        if queued_s < SETTLED_S:
            return inf
        age = (queued_s - SETTLED_S) / (LASTING_S - SETTLED_S)
        return self.burst_s + age * (self.standing_s - self.burst_s)

    def closes_above(self, load: float, waiting: float, queued_s: float, turn_s: float) -> float:
        """Return the load above which one more would wait too long, inf without a queue.

        `load` and `waiting` are those at the last scrape.
        """
        if waiting <= 0:
            return inf
        return load - waiting - 1 + self.allowed_s(queued_s) / turn_s

    def closes_above_in_burst(self, places: float, turn_s: float) -> float:
        """Return the same for a burst that no scrape has seen yet, before a server with this many places."""
        return places - 1 + self.burst_s / turn_s


def queued_s(known_s: float, waiting: float, elapsed_s: float) -> float:
    """Return how long requests have been waiting, less how long none did, up to LASTING_S."""
    return min(LASTING_S, known_s + elapsed_s) if waiting > 0 else max(0.0, known_s - elapsed_s)


@dataclass(frozen=True, slots=True)
class FleetRules:
    """The rules of every backend; scrapes older than `stale_after_s` are no signal."""

    saturation: SaturationRule = field(default_factory=SaturationRule)
    breaker: BreakerRule = field(default_factory=BreakerRule)
    trust: TrustRule = field(default_factory=TrustRule)
    waiting: WaitingRule = field(default_factory=WaitingRule)
    stale_after_s: float = ScrapeRule().stale_after_s
    low_s: float = ZoneRule().low_s
