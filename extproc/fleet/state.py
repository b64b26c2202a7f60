"""What is known of one backend: everything in one object, which the fleet's events change in place.

A decision scans the candidates' states in plain Python. With numpy's arrays in its place the same decision
took half as long for a thousand backends, but four times as long for sixteen, behind a real Envoy: each call
into numpy costs about as much as looking at one backend, and more where the caches are cold (measured).
"""

from dataclasses import dataclass
from math import inf, nan

from extproc.fleet.pace import UNKNOWN, Pace

Slots = tuple[int, ...]
"""Indices of backends in the fleet."""


@dataclass(slots=True)
class BackendState:
    """A backend that takes a place in the fleet; of one that was never scraped the signals say nothing.

    `own_at_scrape` were in flight when the last good scrape was sent. `running_limit` is the server's own,
    inf until known, `most_running` what it was seen to run, and `places` how many requests it is taken to
    serve at once; so many of ours have `ended` there. `medium_load` is where its medium zone
    starts. The backend takes no request while its load is above `closed_above`, or before `admits_at_s`.
    `closed_above` is the smaller of `full_above`, which follows from its limit `max_active`, and of
    `waits_above`, beyond which one more would wait too long in its queue; there has been one for `queued_s`.
    `observed_ttft_s` is NaN until there was one. The prompts that were sent there are computed at
    `prefilled_at_s`, by its pace.
    """

    slot: int
    medium_load: float
    closed_above: float
    max_active: int = 0
    running_limit: float = inf
    places: float = inf
    own: int = 0
    ended: int = 0
    foreign: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    kv_cache_fraction: float = nan
    scraped_at_s: float = -inf
    own_at_scrape: int = 0
    admits_at_s: float = -inf
    observed_ttft_s: float = nan
    is_refusing: bool = False
    prefilled_at_s: float = -inf
    pace: Pace = UNKNOWN
    full_above: float = inf
    waits_above: float = inf
    queued_s: float = 0.0
    most_running: float = 0.0
