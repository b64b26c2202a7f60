"""Requests for adapters, of which few are popular and most are not.

The popularity of the n-th adapter is 1 / n ** `skew` (Zipf's law), which is what is reported of names that
many users choose from. Which request is for which adapter is drawn apart from all else, so that lengths and
times are those of the same traffic without adapters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import msgspec
import numpy as np

from extproc.lab.traffic.arrivals import Arrival, Traffic

_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Adapters:
    """A number of adapters, counted from 1 in the order of their popularity."""

    count: int
    skew: float

    def shares(self) -> list[float]:
        """Return the share of the requests that each of them gets."""
        weights = np.arange(1, self.count + 1, dtype=np.float64) ** -self.skew
        found: list[float] = (weights / weights.sum()).tolist()
        return found


@dataclass(frozen=True, slots=True)
class AdapterTraffic:
    """Some traffic, each of whose requests is for an adapter."""

    traffic: Traffic
    adapters: Adapters

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        """Return all requests, in the order in which they come."""
        (choosing,) = rng.spawn(1)
        shares = self.adapters.shares()
        arrivals = self.traffic.arrivals(rng)
        while batch := list(islice(arrivals, _BATCH)):
            chosen = choosing.choice(len(shares), len(batch), p=shares) + 1
            for arrival, adapter in zip(batch, chosen.tolist(), strict=True):
                yield msgspec.structs.replace(arrival, adapter=adapter)
