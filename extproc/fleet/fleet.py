"""The fleet: everything that is known of every backend, as arrays with one entry per backend.

The request path reads it (`view`), reserves a slot (`reserve`) and gives it back (`release`) without an
await in between, so a burst cannot overshoot a limit. The scraper writes signals, the access log writes
outcomes. Membership is in `fleet.registry`; a backend keeps its index (`slot`) as long as it is here.
"""

from dataclasses import dataclass
from math import isnan

import numpy as np

from extproc.fleet import view
from extproc.fleet.breaker import BreakerRule, FailureBreakers
from extproc.fleet.drain_rate import DrainRates
from extproc.fleet.load import Slots, foreign_load, pinned_limit
from extproc.fleet.own_history import OwnHistory
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import Signals
from extproc.fleet.zone import learned_boundary

CAPACITY = 4096
"""The most backends at once, departing ones included; all arrays have this length."""

OBSERVED_WEIGHT = 0.2
"""Guessed: the share of the newest TTFT in `observed_ttft_s`."""


@dataclass(frozen=True, slots=True)
class FleetRules:
    """What the fleet has to know of the configuration."""

    saturation: SaturationRule
    breaker: BreakerRule
    stale_after_s: float
    low_s: float
    medium_load: float


class Fleet:
    """The arrays, and the events that change them. Times are seconds of one monotonic clock."""

    def __init__(self, rules: FleetRules) -> None:
        self._rules = rules
        self._rows = np.zeros((CAPACITY, view.N_COLUMNS))
        self.own = self._rows[:, view.OWN]
        self.foreign = self._rows[:, view.FOREIGN]
        self.running = self._rows[:, view.RUNNING]
        self.waiting = self._rows[:, view.WAITING]
        self.kv_cache_fraction = self._rows[:, view.KV_CACHE_FRACTION]
        self.scraped_at_s = self._rows[:, view.SCRAPED_AT_S]
        self.observed_ttft_s = np.full(CAPACITY, np.nan)
        self.breakers = FailureBreakers(self._rows[:, view.ADMITS_AT_S], rules.breaker)
        self.drain_rates = DrainRates(CAPACITY)
        self._expected_medium_load = rules.medium_load
        self._is_refusing = np.zeros(CAPACITY, np.bool_)
        self._history = OwnHistory(CAPACITY)

    def view(self, slots: Slots, now_s: float) -> view.FleetView:
        """What is known of `slots` now; nothing is changed by looking."""
        return view.FleetView(slots, self._rows.take(slots, axis=0), now_s, self._rules.stale_after_s)

    def reserve(self, slot: int, now_s: float) -> None:
        """A request is placed on the backend: it counts from this moment."""
        self.own[slot] += 1
        self.breakers.begin(slot)
        self._own_changed(slot, now_s)

    def release(self, slot: int, now_s: float) -> None:
        """A request has left the backend, however it ended."""
        self.own[slot] -= 1
        self.breakers.end(slot, now_s)
        self.drain_rates.finished(slot, now_s)
        self._own_changed(slot, now_s)

    def scraped(self, slot: int, signals: Signals, own_when_asked: int, now_s: float) -> None:
        """A scrape has succeeded; `own_when_asked` were in flight when it was sent."""
        smallest_own, largest_own = self._history.extremes(slot, now_s)
        self.running[slot] = signals.running
        self.waiting[slot] = signals.waiting
        kv_cache_fraction = signals.kv_cache_fraction
        self.kv_cache_fraction[slot] = np.nan if kv_cache_fraction is None else kv_cache_fraction
        self.scraped_at_s[slot] = now_s
        self._rows[slot, view.OWN_AT_SCRAPE] = own_when_asked
        self.foreign[slot] = foreign_load(signals.running, signals.waiting, largest_own)
        limit = self._rows[slot, view.RUNNING_LIMIT]
        self._rows[slot, view.RUNNING_LIMIT] = pinned_limit(
            float(limit), signals.running, signals.waiting, smallest_own
        )
        if self._is_refusing[slot]:
            self._is_refusing[slot] = False
            self.breakers.probe_soon(slot, now_s)
        self._update_saturation(slot, now_s)

    def scrape_refused(self, slot: int, now_s: float) -> None:
        """Nothing listens there: as good as a failed request."""
        self._is_refusing[slot] = True
        self.breakers.fail(slot, now_s)

    def observed(self, slot: int, load: float, ttft_s: float) -> None:
        """A stream that met `load` had its first token after `ttft_s`."""
        known_s = float(self.observed_ttft_s[slot])
        self.observed_ttft_s[slot] = (
            ttft_s if isnan(known_s) else known_s + OBSERVED_WEIGHT * (ttft_s - known_s)
        )
        boundary = float(self._rows[slot, view.MEDIUM_LOAD])
        self._rows[slot, view.MEDIUM_LOAD] = learned_boundary(boundary, load, ttft_s, self._rules.low_s)

    def expect_medium_load(self, medium_load: float) -> None:
        """Where the medium zone starts, for backends of which no TTFT has been seen yet."""
        self._expected_medium_load = max(1.0, medium_load)
        self._rows[np.isnan(self.observed_ttft_s), view.MEDIUM_LOAD] = self._expected_medium_load

    def latch_saturated(self, slot: int) -> None:
        """The backend was taken out for what is predicted of it: back when its load allows."""
        self._rows[slot, view.CLOSED_ABOVE] = self._rules.saturation.resume_load

    def join(self, slot: int, running_limit: int | None) -> None:
        """A backend takes an empty slot; nothing is known of it."""
        row = self._rows[slot]
        row[:] = 0.0
        row[view.KV_CACHE_FRACTION] = np.nan
        row[view.SCRAPED_AT_S] = -np.inf
        row[view.RUNNING_LIMIT] = np.inf if running_limit is None else running_limit
        row[view.MEDIUM_LOAD] = self._expected_medium_load
        row[view.CLOSED_ABOVE] = self._rules.saturation.opened()
        self.observed_ttft_s[slot] = np.nan
        self._is_refusing[slot] = False
        self._history.clear(slot)
        self.drain_rates.clear(slot)
        self.breakers.reset(slot)

    def _own_changed(self, slot: int, now_s: float) -> None:
        self._history.record(slot, int(self.own[slot]), now_s)
        self._update_saturation(slot, now_s)

    def _update_saturation(self, slot: int, now_s: float) -> None:
        row = self._rows[slot]
        known = row.tolist()
        is_fresh = now_s - known[view.SCRAPED_AT_S] <= self._rules.stale_after_s
        load = known[view.OWN] + (known[view.FOREIGN] if is_fresh else 0.0)
        row[view.CLOSED_ABOVE] = self._rules.saturation.closes_above(load, known[view.CLOSED_ABOVE])
