"""Where one backend takes no more requests: by its own limit, and by the wait in its queue."""

from math import inf

from extproc.fleet.adaptive_limit import AdaptiveLimit
from extproc.fleet.fleet_rules import FleetRules, queued_s
from extproc.fleet.kept_promise import KeptPromise
from extproc.fleet.signals import Signals


class LoadLimits:
    """The bounds of the load, each the largest at which one more request is let in.

    `full_above` follows from `max_active`; above `waits_above` one more would wait too long in the queue that
    the last scrape showed (there has been one for `queued_s`), above `_burst_above` in one that no scrape has
    shown yet. A request may wait for `longest_wait_s` behind other prompts. `most_running` is the most that
    the server was seen to run.
    """

    __slots__ = (
        "_adaptive",
        "_burst_above",
        "_kept",
        "_rules",
        "full_above",
        "longest_wait_s",
        "max_active",
        "most_running",
        "queued_s",
        "waits_above",
    )

    def __init__(self, rules: FleetRules) -> None:
        saturation = rules.saturation
        self._rules = rules
        self._kept = KeptPromise()
        self._adaptive = None if saturation.adaptive is None else AdaptiveLimit(saturation.adaptive)
        self.max_active: int = saturation.max_active
        self.full_above: float = saturation.opened(self.max_active)
        self.waits_above = self._burst_above = inf
        self.queued_s = self.most_running = 0.0
        self.longest_wait_s = rules.waiting.burst_s

    def adapt(self, signals: Signals, smallest_own: int, now_s: float) -> None:
        """Move `max_active` after a scrape, where it is to be found."""
        if self._adaptive is not None:
            self._adaptive.scraped(signals, smallest_own, now_s)
            self.max_active = int(self._adaptive.limit)

    def follow_age(self, waiting: float, elapsed_s: float) -> None:
        """Follow how long requests have been waiting there; a pause in scrapes ends a queue that stands."""
        rules = self._rules
        is_known = elapsed_s <= rules.stale_after_s
        self._kept.forget(elapsed_s)
        self.queued_s = queued_s(self.queued_s, waiting, elapsed_s) if is_known else 0.0
        self.longest_wait_s = min(rules.waiting.burst_s, rules.waiting.allowed_s(self.queued_s))

    def waited(self, wait_s: float) -> None:
        """Take in how long a request waited that had to wait for others to end."""
        self._kept.waited(is_late=wait_s > self._rules.waiting.burst_s)

    def follow_queue(self, running: float, load: float, waiting: float, turn_s: float) -> None:
        """Close above what may wait for places, after a scrape with this many of the `load` waiting.

        One with nothing in flight is never closed: else, once scrapes stop, it would be for good.
        """
        self.most_running = max(self.most_running, running)
        closes_above = self._rules.waiting.closes_above(load, waiting, self.queued_s, turn_s)
        self.waits_above = max(closes_above, self.most_running - 1, 0.0)

    def follow_places(self, places: float, turn_s: float) -> None:
        """Close above what may wait for this many places in a burst that no scrape has seen yet.

        Beyond a limit that was found that is no longer than in a queue that stands, less where the promise is
        not kept. Measured on real servers at three times their capacity: with twice as long a quarter of the
        first tokens were later than promised.
        """
        waiting = self._rules.waiting
        if self._rules.saturation.is_only_places:
            in_burst = min(places, self.max_active) - 1 + self._kept.share * waiting.standing_s / turn_s
        else:
            in_burst = waiting.closes_above_in_burst(places, turn_s)
        self._burst_above = max(in_burst, self.most_running - 1, 0.0)

    def closed_above(self, load: float, is_fresh: bool) -> float:
        """Return the bound in force, after the load or another bound has changed."""
        saturation = self._rules.saturation
        if is_fresh and saturation.is_only_places:
            self.full_above = saturation.opened(saturation.most)
        else:
            self.full_above = saturation.closes_above(load, self.full_above, self.max_active)
        if not is_fresh:
            return self.full_above
        in_queue = self.waits_above if self.waits_above < self._burst_above else self._burst_above
        return in_queue if in_queue < self.full_above else self.full_above
