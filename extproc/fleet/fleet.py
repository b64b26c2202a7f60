"""The fleet: everything that is known of every backend, as arrays with one entry per backend.

The request path reads it (`view`), reserves a slot (`reserve`) and gives it back (`release`) without an
await in between, so a burst cannot overshoot a limit. The scraper writes signals, the access log writes
outcomes. Membership is in `fleet.registry`; a backend keeps its index (`slot`) as long as it is here.
"""

from dataclasses import dataclass

import numpy as np

from extproc.fleet.breaker import BreakerRule, FailureBreakers
from extproc.fleet.drain_rate import DrainRates
from extproc.fleet.load import (
    Bools,
    Floats,
    Slots,
    foreign_load,
    pinned_limit,
    running_now,
)
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


@dataclass(frozen=True, slots=True)
class FleetView:
    """The candidates at one moment: arrays of shape (n_candidates,), copied, in the order of `slots`."""

    slots: Slots
    own: Floats
    foreign: Floats
    load: Floats
    num_running: Floats
    num_waiting: Floats
    kv_cache_fraction: Floats
    scrape_age_s: Floats
    is_fresh: Bools
    is_admitting: Bools
    is_saturated: Bools
    medium_load: Floats


class Fleet:
    """The arrays, and the events that change them. Times are seconds of one monotonic clock."""

    def __init__(self, rules: FleetRules) -> None:
        self._rules = rules
        # One matrix, so that the candidates' entries of all arrays are gathered at once.
        self._columns = np.zeros((10, CAPACITY))
        (
            self.own,
            self.foreign,
            self.running,
            self.waiting,
            self.kv_cache_fraction,
            self.scraped_at_s,
            self._own_at_scrape,
            self._running_limit,
            self._medium_load,
            self._was_saturated,
        ) = self._columns
        self.observed_ttft_s = np.full(CAPACITY, np.nan)
        self.breakers = FailureBreakers(CAPACITY, rules.breaker)
        self.drain_rates = DrainRates(CAPACITY)
        self._expected_medium_load = rules.medium_load
        self._is_refusing = np.zeros(CAPACITY, np.bool_)
        self._history = OwnHistory(CAPACITY)

    def view(self, slots: Slots, now_s: float) -> FleetView:
        """What is known of `slots` now; nothing is changed by looking."""
        (
            own,
            foreign,
            running,
            waiting,
            kv_cache_fraction,
            scraped_at_s,
            own_at_scrape,
            running_limit,
            medium_load,
            was_saturated,
        ) = self._columns.take(slots, axis=1)
        age_s = now_s - scraped_at_s
        is_fresh = age_s <= self._rules.stale_after_s
        foreign = np.where(is_fresh, foreign, 0.0)
        load = own + foreign
        return FleetView(
            slots=slots,
            own=own,
            foreign=foreign,
            load=load,
            num_running=running_now(running, own, own_at_scrape, load, running_limit, is_fresh),
            num_waiting=waiting,
            kv_cache_fraction=np.fmax(0.0, kv_cache_fraction),  # NaN, where it is not reported, to 0
            scrape_age_s=age_s,
            is_fresh=is_fresh,
            is_admitting=self.breakers.admits(slots, now_s),
            is_saturated=self._rules.saturation.is_saturated(load, was_saturated > 0),
            medium_load=medium_load,
        )

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
        self._own_at_scrape[slot] = own_when_asked
        self.foreign[slot] = foreign_load(signals.running, signals.waiting, largest_own)
        self._running_limit[slot] = pinned_limit(
            float(self._running_limit[slot]), signals.running, signals.waiting, smallest_own
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
        known_s = self.observed_ttft_s[slot]
        self.observed_ttft_s[slot] = (
            ttft_s if np.isnan(known_s) else known_s + OBSERVED_WEIGHT * (ttft_s - known_s)
        )
        self._medium_load[slot] = learned_boundary(
            float(self._medium_load[slot]), load, ttft_s, self._rules.low_s
        )

    def expect_medium_load(self, medium_load: float) -> None:
        """Where the medium zone starts, for backends of which no TTFT has been seen yet."""
        self._expected_medium_load = max(1.0, medium_load)
        self._medium_load[np.isnan(self.observed_ttft_s)] = self._expected_medium_load

    def latch_saturated(self, slot: int) -> None:
        """The backend was taken out for what is predicted of it: back when its load allows."""
        self._was_saturated[slot] = 1.0

    def join(self, slot: int, running_limit: int | None) -> None:
        """A backend takes an empty slot; nothing is known of it."""
        self.own[slot] = 0
        self.running[slot] = self.waiting[slot] = self.foreign[slot] = self._own_at_scrape[slot] = 0.0
        self.kv_cache_fraction[slot] = self.observed_ttft_s[slot] = np.nan
        self.scraped_at_s[slot] = -np.inf
        self._running_limit[slot] = np.inf if running_limit is None else running_limit
        self._medium_load[slot] = self._expected_medium_load
        self._was_saturated[slot] = 0.0
        self._is_refusing[slot] = False
        self._history.clear(slot)
        self.drain_rates.clear(slot)
        self.breakers.reset(slot)

    def _own_changed(self, slot: int, now_s: float) -> None:
        self._history.record(slot, int(self.own[slot]), now_s)
        self._update_saturation(slot, now_s)

    def _update_saturation(self, slot: int, now_s: float) -> None:
        is_fresh = now_s - self.scraped_at_s[slot] <= self._rules.stale_after_s
        load = float(self.own[slot]) + (float(self.foreign[slot]) if is_fresh else 0.0)
        was_saturated = bool(self._was_saturated[slot])
        self._was_saturated[slot] = self._rules.saturation.is_saturated(load, was_saturated)
