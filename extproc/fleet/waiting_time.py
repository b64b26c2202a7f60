"""How long a request may wait inside a server before it is no longer sent there.

A server answers no more for having a longer queue: once all its places are taken, whoever joins only makes
those behind wait. A queue that soon empties again is a burst, and smoothing bursts is what queues are for;
one that stands has no use at all. So the wait that is allowed shrinks, the longer requests have been waiting
there, from `burst_s` to `standing_s`. This is the thought of CoDel (Nichols and Jacobson, "Controlling Queue
Delay", 2012), in the form that Maurer gave it for requests ("Fail at Scale", 2015).

The wait is the number of requests that wait by the server's own last scrape, and those sent since, by the
learned time from one to the next (`fleet.pace`). All of this gets better by itself while nothing is sent: a
server whose last scrape found no request waiting is never closed for this, however slow it is believed to be.
"""

from dataclasses import dataclass
from math import inf

from extproc.fleet.bounds import Seconds, Share

LASTING_S = 10.0
"""Guessed: a queue that has been there for so long will not empty by itself."""

SETTLED_S = 1.0
"""Guessed: in one that is younger they may only wait for the next iteration."""


@dataclass(frozen=True, slots=True)
class WaitingRule:
    """The longest wait that is allowed in a young queue, and the share of it in a queue that stands."""

    burst_s: Seconds = 5.0  # borrowed from the design: half the saturated bound
    standing_share: Share = 0.2  # tried on tuning scenarios: that is enough to keep a server busy

    @property
    def standing_s(self) -> float:
        """The longest wait in a queue that stands."""
        return self.standing_share * self.burst_s

    def allowed_s(self, queued_s: float) -> float:
        """Return the longest wait in a queue that has been there for so long."""
        if queued_s < SETTLED_S:
            return inf
        age = (queued_s - SETTLED_S) / (LASTING_S - SETTLED_S)
        return self.burst_s + age * (self.standing_s - self.burst_s)

    def closes_above(self, load: float, waiting: float, queued_s: float, turn_s: float) -> float:
        """The load above which one more would wait too long, inf without a queue.

        `load` and `waiting` are those at the last scrape.
        """
        if waiting <= 0:
            return inf
        return load - waiting - 1 + self.allowed_s(queued_s) / turn_s


def queued_s(known_s: float, waiting: float, elapsed_s: float) -> float:
    """Return how long requests have been waiting, less how long none did, up to LASTING_S."""
    return min(LASTING_S, known_s + elapsed_s) if waiting > 0 else max(0.0, known_s - elapsed_s)
