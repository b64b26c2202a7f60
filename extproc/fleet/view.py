"""The candidates at one moment: what a decision looks at.

A decision looks at load and at who is out for all of them, and at the rest for few: that is worked out when
it is asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isinf, isnan
from types import MappingProxyType

import msgspec

from extproc.fleet.load import running_now
from extproc.fleet.pace import CROWDING
from extproc.fleet.state import BackendState
from extproc.fleet.zone import Zone


class Candidate(msgspec.Struct, frozen=True):
    """What is known of one backend, as it is recorded; `scrape_age_s` is None before the first scrape.

    `cached_tokens` of the request's prompt are expected in its prefix cache.
    """

    slot: int
    own: float
    foreign: float
    load: float
    num_running: float
    num_waiting: float
    kv_cache_fraction: float
    scrape_age_s: float | None
    zone: str
    cached_tokens: float = 0.0


NOTHING_CACHED: Mapping[int, float] = MappingProxyType({})


class FleetView:
    """The states of the candidates, and their `load`, in the same order; positions count from 0.

    It is for one decision: what it says of a backend may change with the next event. `cached_tokens` of the
    request's prompt are expected in prefix caches, by slot.
    """

    __slots__ = ("_cached_tokens", "_fresh_from_s", "_now_s", "load", "states")

    def __init__(
        self,
        states: Sequence[BackendState],
        now_s: float,
        stale_after_s: float,
        cached_tokens: Mapping[int, float] = NOTHING_CACHED,
    ) -> None:
        fresh_from_s = now_s - stale_after_s
        self._now_s = now_s
        self._fresh_from_s = fresh_from_s
        self._cached_tokens = cached_tokens
        self.states = states
        self.load = [
            state.own + state.foreign if state.scraped_at_s >= fresh_from_s else state.own for state in states
        ]

    def __len__(self) -> int:
        return len(self.states)

    def is_fresh(self, position: int) -> bool:
        """Whether the last good scrape is young enough to be a signal."""
        return self.states[position].scraped_at_s >= self._fresh_from_s

    def is_alive(self, position: int) -> bool:
        """Whether its last scrape was answered, and a moment ago."""
        return self.is_fresh(position) and not self.states[position].is_refusing

    def has_room(self, position: int) -> bool:
        """Whether it is not saturated."""
        return self.load[position] <= self.states[position].closed_above

    def is_below_limit(self, position: int) -> bool:
        """Whether it may hold another request, its queue aside."""
        return self.load[position] <= self.states[position].full_above

    def is_low(self, position: int) -> bool:
        """Return whether it is in the low zone, by the boundary on its load."""
        return self.load[position] < self.states[position].medium_load

    def is_any_low(self, positions: Iterable[int]) -> bool:
        """Whether one of them is: for a decision, in half the time that it takes to ask about each."""
        load, states = self.load, self.states
        return any(load[position] < states[position].medium_load for position in positions)

    def admitting(self) -> list[int]:
        """Who does not fail."""
        now_s = self._now_s
        return [position for position, state in enumerate(self.states) if state.admits_at_s <= now_s]

    def fit(self) -> list[int]:
        """Who neither fails nor is saturated."""
        now_s, load = self._now_s, self.load
        return [
            position
            for position, state in enumerate(self.states)
            if load[position] <= state.closed_above and state.admits_at_s <= now_s
        ]

    def expected_s(self, positions: Iterable[int], prompt_tokens: float) -> list[float]:
        """What a request has to expect at some positions, see `fleet.pace`; 1,000 of them in half a ms."""
        now_s, load, states, cached_tokens = self._now_s, self.load, self.states, self._cached_tokens
        expected_s = []
        for position in positions:
            state, ahead = states[position], load[position] + 1
            pace, turns = state.pace, CROWDING * ahead
            if ahead > state.places:
                turns += ahead - state.places
            each_s = pace.base_s + pace.token_s * (prompt_tokens - cached_tokens.get(state.slot, 0.0))
            if state.prefilled_at_s > now_s:
                each_s += state.prefilled_at_s - now_s
            expected_s.append(each_s + pace.turn_s * turns)
        return expected_s

    def signals(self, position: int) -> tuple[float, float, float, float]:
        """One candidate's running (estimated for now), load, waiting requests and KV-cache fraction."""
        state, load = self.states[position], self.load[position]
        change = state.own - state.own_at_scrape
        running = running_now(state.running, change, load, state.running_limit, self.is_fresh(position))
        kv_cache_fraction = state.kv_cache_fraction
        return running, load, state.waiting, 0.0 if isnan(kv_cache_fraction) else kv_cache_fraction

    def candidate(self, position: int) -> Candidate:
        """All that is known of one of them."""
        state = self.states[position]
        num_running, load, num_waiting, kv_cache_fraction = self.signals(position)
        age_s = self._now_s - state.scraped_at_s
        return Candidate(
            slot=state.slot,
            own=state.own,
            foreign=load - state.own,
            load=load,
            num_running=num_running,
            num_waiting=num_waiting,
            kv_cache_fraction=kv_cache_fraction,
            scrape_age_s=None if isinf(age_s) else age_s,
            zone=self._zone(position).value,
            cached_tokens=self._cached_tokens.get(state.slot, 0.0),
        )

    def _zone(self, position: int) -> Zone:
        if not self.has_room(position):
            return Zone.SATURATED
        return Zone.LOW if self.is_low(position) else Zone.MEDIUM
