"""The candidates at one moment, gathered from the fleet's rows: what a decision looks at.

A decision looks at load and at who is out for all of them, and at the rest for few: that is worked out when
it is asked for. Rows, not columns, are stored side by side, because a decision touches a few backends and
their memory should be one piece (measured: a third of the time of sixteen columns far apart).
"""

from math import isinf, isnan
from typing import Final

import msgspec
import numpy as np

from extproc.fleet.load import Bools, Floats, Slots, running_now
from extproc.fleet.zone import Zone

# What a row of the fleet's matrix has of one backend.
OWN: Final = 0
FOREIGN: Final = 1
RUNNING: Final = 2
WAITING: Final = 3
KV_CACHE_FRACTION: Final = 4
SCRAPED_AT_S: Final = 5
OWN_AT_SCRAPE: Final = 6
RUNNING_LIMIT: Final = 7
MEDIUM_LOAD: Final = 8
CLOSED_ABOVE: Final = 9
ADMITS_AT_S: Final = 10
N_COLUMNS: Final = 11


class Candidate(msgspec.Struct, frozen=True):
    """What is known of one backend, as it is recorded; `scrape_age_s` is None before the first scrape."""

    slot: int
    own: float
    foreign: float
    load: float
    num_running: float
    num_waiting: float
    kv_cache_fraction: float
    scrape_age_s: float | None
    zone: str


class FleetView:
    """Arrays of shape (n_candidates,), copied, in the order of `slots`.

    `is_admitting` is False where a backend fails, `has_room` where it is saturated. `is_low` is where the
    load is below the backend's boundary; who knows better tells, for this view alone, by `tell_zones`.
    """

    __slots__ = (
        "_now_s",
        "_rows",
        "has_room",
        "is_admitting",
        "is_fresh",
        "is_high",
        "is_low",
        "load",
        "medium_load",
        "slots",
    )

    def __init__(self, slots: Slots, rows: Floats, now_s: float, stale_after_s: float) -> None:
        columns: Floats = rows.T
        self._rows = rows
        self._now_s = now_s
        self.slots = slots
        self.medium_load: Floats = columns[MEDIUM_LOAD]
        self.is_fresh: Bools = columns[SCRAPED_AT_S] >= now_s - stale_after_s
        self.load: Floats = columns[OWN] + np.where(self.is_fresh, columns[FOREIGN], 0.0)
        self.is_low: Bools = self.load < self.medium_load
        self.is_high: Bools | None = None
        self.has_room: Bools = self.load <= columns[CLOSED_ABOVE]
        self.is_admitting: Bools = columns[ADMITS_AT_S] <= now_s

    def signals(self, position: int) -> tuple[float, float, float, float]:
        """One candidate's running (estimated for now), load, waiting requests and KV-cache fraction."""
        return self._signals(position, self._rows[position].tolist())

    def tell_zones(self, positions: Slots, is_low: Bools, is_high: Bools) -> None:
        """Overrule the boundaries at some positions: the zone is the low or the saturated one, or medium."""
        self.is_low[positions] = is_low
        self.is_high = np.zeros(self.slots.size, np.bool_)
        self.is_high[positions] = is_high

    def candidate(self, position: int) -> Candidate:
        """All that is known of one of them."""
        known = self._rows[position].tolist()
        num_running, load, num_waiting, kv_cache_fraction = self._signals(position, known)
        age_s = self._now_s - known[SCRAPED_AT_S]
        return Candidate(
            slot=int(self.slots[position]),
            own=known[OWN],
            foreign=load - known[OWN],
            load=load,
            num_running=num_running,
            num_waiting=num_waiting,
            kv_cache_fraction=kv_cache_fraction,
            scrape_age_s=None if isinf(age_s) else age_s,
            zone=self._zone(position).value,
        )

    def _zone(self, position: int) -> Zone:
        if not self.has_room[position] or (self.is_high is not None and self.is_high[position]):
            return Zone.SATURATED
        return Zone.LOW if self.is_low[position] else Zone.MEDIUM

    def _signals(self, position: int, known: list[float]) -> tuple[float, float, float, float]:
        load, is_fresh = float(self.load[position]), bool(self.is_fresh[position])
        change = known[OWN] - known[OWN_AT_SCRAPE]
        running = running_now(known[RUNNING], change, load, known[RUNNING_LIMIT], is_fresh)
        kv_cache_fraction = known[KV_CACHE_FRACTION]
        return running, load, known[WAITING], 0.0 if isnan(kv_cache_fraction) else kv_cache_fraction
