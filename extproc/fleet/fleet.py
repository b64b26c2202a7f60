"""The fleet: everything that is known of every backend, one state per slot.

The request path reads it (`view`), reserves a slot (`reserve`) and gives it back (`release`) without an
await in between, so a burst cannot overshoot a limit. The scraper writes signals, the access log writes
outcomes. Membership is in `fleet.registry`; a backend keeps its index (`slot`) as long as it is here.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan

from extproc.bounds import MAX_BACKENDS
from extproc.fleet.adaptive_limit import AdaptiveLimit
from extproc.fleet.breaker import BreakerRule, FailureBreakers
from extproc.fleet.drain_rate import DrainRates
from extproc.fleet.load import foreign_load
from extproc.fleet.own_history import OwnHistory
from extproc.fleet.pace import UNKNOWN, Answered, PaceLearning
from extproc.fleet.prefixes import SentPrefixes
from extproc.fleet.running_limit import RunningLimit
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import ScrapeRule, Signals
from extproc.fleet.state import BackendState
from extproc.fleet.view import NOTHING_CACHED, FleetView
from extproc.fleet.waiting_time import WaitingRule, queued_s
from extproc.fleet.zone import ZoneRule, learned_boundary

CAPACITY = 2 * MAX_BACKENDS
"""The most backends at once, departing ones included."""

OBSERVED_WEIGHT = 0.2
"""Guessed: the share of the newest TTFT in `observed_ttft_s`."""


@dataclass(frozen=True, slots=True)
class FleetRules:
    """What the fleet has to know of the configuration."""

    saturation: SaturationRule = field(default_factory=SaturationRule)
    breaker: BreakerRule = field(default_factory=BreakerRule)
    stale_after_s: float = ScrapeRule().stale_after_s
    low_s: float = ZoneRule().low_s
    medium_load: float = ZoneRule().medium_load
    waiting: WaitingRule = field(default_factory=WaitingRule)


class Fleet:
    """The states by slot, and the events that change them. Times are seconds of one monotonic clock."""

    def __init__(self, rules: FleetRules) -> None:
        self._rules = rules
        self._expected_medium_load = rules.medium_load
        self._history = OwnHistory(CAPACITY)
        self._common_pace, self._common_learning = UNKNOWN, PaceLearning()
        self._learning: defaultdict[int, PaceLearning] = defaultdict(PaceLearning)
        self.states = [self._unknown(slot) for slot in range(CAPACITY)]
        self.breakers = FailureBreakers(self.states, rules.breaker)
        self.drain_rates = DrainRates(CAPACITY)
        self.prefixes = SentPrefixes()
        self._most_places = 0.0  # of all limits that are sure
        self._running_limits: defaultdict[int, RunningLimit] = defaultdict(RunningLimit)
        self._adaptive: dict[int, AdaptiveLimit] = {}

    def view(
        self, slots: Sequence[int], now_s: float, cached_tokens: Mapping[int, float] = NOTHING_CACHED
    ) -> FleetView:
        """What is known of `slots` now; nothing is changed by looking."""
        states = self.states
        return FleetView([states[slot] for slot in slots], now_s, self._rules.stale_after_s, cached_tokens)

    def reserve(self, slot: int, now_s: float, prompt_tokens: float = 0.0) -> None:
        """A request is placed on the backend: it counts from now on, and these tokens have to be computed."""
        state = self.states[slot]
        state.own += 1
        state.prefilled_at_s = max(state.prefilled_at_s, now_s) + state.pace.token_s * prompt_tokens
        self.breakers.begin(slot)
        self._own_changed(state, now_s)

    def release(self, slot: int, now_s: float) -> None:
        """A request has left the backend, however it ended."""
        state = self.states[slot]
        state.own -= 1
        state.ended += 1
        self.breakers.end(slot, now_s)
        self.drain_rates.finished(slot, now_s)
        self._own_changed(state, now_s)

    def move(self, slot: int, other: int, now_s: float) -> None:
        """A request that was placed on one backend is on another: Envoy has tried again there."""
        for state, change in ((self.states[slot], -1), (self.states[other], 1)):
            state.own += change
            self._own_changed(state, now_s)

    def scraped(self, slot: int, signals: Signals, own_when_asked: int, now_s: float) -> None:
        """A scrape has succeeded; `own_when_asked` were in flight when it was sent."""
        state = self.states[slot]
        smallest_own, largest_own = self._history.extremes(slot, now_s)
        elapsed_s = now_s - state.scraped_at_s
        state.running = signals.running
        state.waiting = signals.waiting
        state.kv_cache_fraction = nan if signals.kv_cache_fraction is None else signals.kv_cache_fraction
        state.scraped_at_s = now_s
        state.own_at_scrape = own_when_asked
        state.foreign = foreign_load(signals.running, signals.waiting, largest_own)
        self._follow_limit(state, signals, smallest_own)
        self.prefixes.scraped(slot, signals)
        limit = self._adaptive.get(slot)
        if limit is not None:
            limit.scraped(signals, smallest_own, now_s)
            state.max_active = int(limit.limit)
        if state.is_refusing:
            state.is_refusing = False
            self.breakers.probe_soon(slot, now_s)
        self._update_waiting(state, elapsed_s)
        self._update_saturation(state, now_s)

    def scrape_refused(self, slot: int, now_s: float) -> None:
        """Nothing listens there: as good as a failed request."""
        self.states[slot].is_refusing = True
        self.breakers.fail(slot, now_s)

    def scrape_hung(self, slot: int, now_s: float) -> None:
        """No answer in time. It is frozen, perhaps, where it holds requests of ours and others do answer."""
        fresh_s = now_s - self._rules.stale_after_s
        if self.states[slot].own > 0 and any(state.scraped_at_s >= fresh_s for state in self.states):
            self.scrape_refused(slot, now_s)

    def observed(self, slot: int, load: float, ttft_s: float) -> None:
        """A stream that met `load` had its first token after `ttft_s`."""
        state = self.states[slot]
        known_s = state.observed_ttft_s
        state.observed_ttft_s = ttft_s if isnan(known_s) else known_s + OBSERVED_WEIGHT * (ttft_s - known_s)
        state.medium_load = learned_boundary(state.medium_load, load, ttft_s, self._rules.low_s)

    def paced(self, slot: int, seen: Answered, now_s: float) -> None:
        """A stream has ended: how fast the backend is, and the fleet."""
        state = self.states[slot]
        limit, common = state.places, self._common_pace
        self._common_pace = common = self._common_learning.learn(common, seen, limit, common, now_s)
        state.pace = self._learning[slot].learn(state.pace, seen, limit, common, now_s)

    def expect_medium_load(self, medium_load: float) -> None:
        """Where the medium zone starts, for backends of which no TTFT has been seen yet."""
        self._expected_medium_load = max(1.0, medium_load)
        for state in self.states:
            if isnan(state.observed_ttft_s):
                state.medium_load = self._expected_medium_load

    def latch_saturated(self, slot: int) -> None:
        """The backend was taken out for what is predicted of it: back when its load allows."""
        state = self.states[slot]
        state.full_above = self._rules.saturation.resumes_at(state.max_active)
        state.closed_above = min(state.full_above, state.closed_above)

    def join(self, slot: int, running_limit: int | None) -> None:
        """A backend takes an empty slot; nothing is known of it."""
        self.states[slot] = self._unknown(slot)
        limit = inf if running_limit is None else running_limit
        self.states[slot].running_limit = self.states[slot].places = limit
        self._running_limits[slot] = RunningLimit(limit)
        adaptive = self._rules.saturation.adaptive
        if adaptive is not None:
            self._adaptive[slot] = AdaptiveLimit(adaptive)
        self._history.clear(slot)
        self._learning.pop(slot, None)
        self.drain_rates.clear(slot)
        self.prefixes.forget(slot)
        self.breakers.reset(slot)

    def leave(self, slots: Iterable[int]) -> None:
        """Backends are gone: how many places they had is no measure for the others any more."""
        for slot in slots:
            del self._running_limits[slot]
        sure = (limit.limit for limit in self._running_limits.values() if limit.is_sure)
        self._most_places = max(sure, default=0.0)

    def _unknown(self, slot: int) -> BackendState:
        saturation, common = self._rules.saturation, self._common_pace
        limit = saturation.max_active
        closed_above = saturation.opened(limit)
        return BackendState(
            slot, self._expected_medium_load, closed_above, limit, pace=common, full_above=closed_above
        )

    def _follow_limit(self, state: BackendState, signals: Signals, smallest_own: float) -> None:
        """The backend's own limit; where none was seen, it is taken to have as many places as any."""
        limit, ended = self._running_limits[state.slot], signals.ended_total
        limit.seen(signals.running, signals.waiting, smallest_own, state.ended if ended is None else ended)
        if limit.is_sure:
            self._most_places = max(self._most_places, limit.limit)
        state.running_limit = state.places = limit.limit
        if limit.limit == inf and self._most_places:
            state.places = max(self._most_places, signals.running)

    def _own_changed(self, state: BackendState, now_s: float) -> None:
        self._history.record(state.slot, state.own, now_s)
        self._update_saturation(state, now_s)

    def _update_waiting(self, state: BackendState, elapsed_s: float) -> None:
        """After a scrape; what was before a pause in which there was none is no queue that stands."""
        is_known = elapsed_s <= self._rules.stale_after_s
        state.queued_s = queued_s(state.queued_s, state.waiting, elapsed_s) if is_known else 0.0
        state.most_running = max(state.most_running, state.running)
        waits_above = self._rules.waiting.closes_above(
            state.own_at_scrape + state.foreign, state.waiting, state.queued_s, state.pace.turn_s
        )
        # One of which nothing is in flight is never closed: else, once scrapes stop, it would be for good.
        state.waits_above = max(waits_above, state.most_running - 1, 0.0)

    def _update_saturation(self, state: BackendState, now_s: float) -> None:
        is_fresh = now_s - state.scraped_at_s <= self._rules.stale_after_s
        load = state.own + (state.foreign if is_fresh else 0.0)
        state.full_above = self._rules.saturation.closes_above(load, state.full_above, state.max_active)
        state.closed_above = min(state.full_above, state.waits_above if is_fresh else inf)
