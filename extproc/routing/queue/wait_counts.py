"""Counts of the requests that had to wait: how each wait ended, and how long those took that were let in."""

from collections import Counter
from enum import StrEnum

from extproc.exchange.messages import Continue, RouteTo
from extproc.exchange.placement import Placement
from extproc.outcomes.outcome_counts import Histogram

WAIT_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)


class Ending(StrEnum):
    """Why a request waits no more."""

    LET_IN = "let_in"
    FULL = "full"  # refused on arrival
    DISPLACED = "displaced"  # pushed out by one that deserves the place more
    TIMEOUT = "timeout"
    CLIENT_LEFT = "client_left"
    UNKNOWN_MODEL = "unknown_model"  # its model has gone
    PASSED_THROUGH = "passed_through"  # the sidecar ends, or has no backend any more: Envoy's own pool


class WaitCounts:
    """Counts the requests that had to wait since the start; `waits` has the times of those let in."""

    def __init__(self) -> None:
        self.endings: Counter[Ending] = Counter()
        self.waits = Histogram(WAIT_BOUNDS_S)

    def count(self, ending: Ending, waited_s: float) -> None:
        """Count a request that left the queue."""
        self.endings[ending] += 1
        if ending is Ending.LET_IN:
            self.waits.add(waited_s)


def ending_of(placement: Placement, refused: Ending = Ending.UNKNOWN_MODEL) -> Ending:
    """Return how a placement has settled a request, `refused` where it was."""
    if isinstance(placement.instruction, RouteTo):
        return Ending.LET_IN
    return Ending.PASSED_THROUGH if isinstance(placement.instruction, Continue) else refused
