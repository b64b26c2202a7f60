"""The candidates at one moment, gathered from the fleet's rows: what a decision looks at.

A decision looks at load and at who is out for all of them, and at the rest for few: that is worked out when
it is asked for. Rows, not columns, are stored side by side, because a decision touches a few backends and
their memory should be one piece (measured: a third of the time of sixteen columns far apart).
"""

from typing import Final

import msgspec
import numpy as np

from extproc.fleet.load import Bools, Floats, Slots, running_now
from extproc.fleet.zone import zone_of

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
    """Arrays of shape (n_candidates,), copied, in the order of `slots`."""

    __slots__ = (
        "_columns",
        "foreign",
        "is_admitting",
        "is_fresh",
        "is_saturated",
        "load",
        "medium_load",
        "num_waiting",
        "own",
        "scrape_age_s",
        "slots",
    )

    def __init__(self, slots: Slots, rows: Floats, now_s: float, stale_after_s: float) -> None:
        columns: Floats = rows.T
        self._columns = columns
        self.slots = slots
        self.own: Floats = columns[OWN]
        self.num_waiting: Floats = columns[WAITING]
        self.medium_load: Floats = columns[MEDIUM_LOAD]
        self.scrape_age_s: Floats = now_s - columns[SCRAPED_AT_S]
        self.is_fresh: Bools = self.scrape_age_s <= stale_after_s
        self.foreign: Floats = columns[FOREIGN] * self.is_fresh
        self.load: Floats = self.own + self.foreign
        self.is_saturated: Bools = self.load > columns[CLOSED_ABOVE]
        self.is_admitting: Bools = columns[ADMITS_AT_S] <= now_s

    @property
    def kv_cache_fraction(self) -> Floats:
        """The scraped share of KV cache in use; 0 where it is not reported."""
        fraction: Floats = np.fmax(0.0, self._columns[KV_CACHE_FRACTION])
        return fraction

    @property
    def num_running(self) -> Floats:
        """The estimate of the running requests for now."""
        columns = self._columns
        return running_now(
            columns[RUNNING],
            columns[OWN],
            columns[OWN_AT_SCRAPE],
            self.load,
            columns[RUNNING_LIMIT],
            self.is_fresh,
        )

    def candidate(self, position: int) -> Candidate:
        """All that is known of one of them."""
        (own, _, running, waiting, kv_cache_fraction, _, own_at_scrape, limit, medium_load, _, _) = (
            self._columns[:, position].tolist()
        )
        load, is_fresh = float(self.load[position]), bool(self.is_fresh[position])
        age_s = float(self.scrape_age_s[position])
        return Candidate(
            slot=int(self.slots[position]),
            own=own,
            foreign=load - own,
            load=load,
            num_running=float(running_now(running, own, own_at_scrape, load, limit, is_fresh)),
            num_waiting=waiting,
            kv_cache_fraction=kv_cache_fraction if kv_cache_fraction >= 0.0 else 0.0,
            scrape_age_s=age_s if age_s < np.inf else None,
            zone=zone_of(load, medium_load, bool(self.is_saturated[position])).value,
        )
