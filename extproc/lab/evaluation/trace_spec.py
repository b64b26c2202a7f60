"""A recorded trace as a workload: as it is, or stretched to a share of what the fleet can answer.

Stretching multiplies all times by one factor, so bursts stay bursts: `load` is the mean over the whole trace,
and the first seconds of it, where only these are played, may have more or less.
"""

from dataclasses import dataclass

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.traffic.arrivals import Arrival
from extproc.lab.traffic.trace import Replay, Trace

MAX_DURATION_S = 30 * 24 * 3600.0
MAX_SAMPLE = 20_000
"""Guessed: the requests that a fleet's capacity is measured with, if the trace has this many."""


@dataclass(frozen=True, slots=True, eq=False)
class TraceSpec:
    """A trace before the fleet is known.

    With a `load` its mean rate is so much of the fleet's capacity, otherwise it comes as it was recorded;
    after `first_s` seconds it ends.
    """

    name: str
    trace: Trace
    load: float | None = None
    first_s: float | None = None

    @property
    def longest_tokens(self) -> int:
        """The context that its requests need."""
        return self.trace.longest_tokens

    def factor(self, capacity_per_s: float) -> float:
        """Return what its times are multiplied by for a fleet of that capacity."""
        if self.load is None:
            return 1.0
        return len(self.trace) / self.trace.duration_s / (self.load * capacity_per_s)

    def lasts_s(self, capacity_per_s: float) -> float:
        """Return the time of the last request, or from which on there are none; ConfigError if in weeks."""
        lasts_s = self.trace.duration_s * self.factor(capacity_per_s)
        if self.first_s is not None:
            lasts_s = min(lasts_s, self.first_s)
        if lasts_s > MAX_DURATION_S:
            raise ConfigError(
                f"{self.name}: the trace would last {lasts_s:.3g} s, and at most {MAX_DURATION_S:.0f} are "
                "evaluated: add @LOAD or for=SECONDS"
            )
        return lasts_s

    def traffic(self, max_model_len: int, capacity_per_s: float) -> Replay:
        """Return what arrives at a fleet with this context and capacity."""
        played = self.trace.stretched(self.factor(capacity_per_s))
        return Replay(played if self.first_s is None else played.first(self.first_s), max_model_len)

    def sample(self, count: int, max_model_len: int, rng: np.random.Generator) -> list[Arrival]:
        """Return `count` requests or more, whatever their times.

        Where prompts share beginnings they come in their order, so that as much is found in a cache as in
        the trace; otherwise they are mixed, so that any part of the sample is like the others. Where the
        trace has too few they come again, with beginnings that are new.
        """
        trace, base = self.trace, 0
        found: list[Arrival] = []
        while len(found) < count:
            if trace.prefixes is None:
                rows = trace.rows(rng.permutation(len(trace))[:MAX_SAMPLE])
            else:
                rows = trace.rows(slice(MAX_SAMPLE))
                base += trace.prefixes.width
            found += rows.arrivals(max_model_len, base)
        return found
