"""How many requests the KV memory of a backend holds, seen before it is full: a part of `max_active: auto`.

Requests have more or less of it, so how many fit changes by the second, and the largest number that ever
ran at once is luck. But what would run with the memory full is known at any time:

    running / fraction in use * fraction in use while a request waits for memory

The last is less than one: the next request is sometimes long. All are averaged where they say something of a
full batch, which is near the limit, or where a request waits. What few requests have at low load foretells
nothing.
"""

from math import exp, inf

from extproc.fleet.signals import Signals

SCARCE = 0.8
"""Guessed: with so much in use a prompt of usual length may have to wait for memory."""

SHARE = 1.12
"""Measured in the twin, see benchmarks/README.md: the median of TTFT bends at 1.0 to 1.2 of what fits in on
average. A request that does not fit soon does, as long as most are in."""

FORGETTING_S = 30.0
"""Guessed: some lifetimes of requests."""

ENOUGH_S = 5.0
"""Guessed: after less nothing is known."""


class _Mean:
    """The mean of values, slowly forgotten; `seen_s` is its weight."""

    __slots__ = ("_total", "seen_s")

    def __init__(self) -> None:
        self.seen_s = self._total = 0.0

    def add(self, value: float, step_s: float) -> None:
        kept = exp(-step_s / FORGETTING_S)
        self.seen_s = kept * self.seen_s + step_s
        self._total = kept * self._total + value * step_s

    def or_else(self, unknown: float) -> float:
        return self._total / self.seen_s if self.seen_s >= ENOUGH_S else unknown


class MemoryBound:
    """The number of `requests` that fit in; inf where that is not known."""

    __slots__ = ("_fraction", "_fraction_when_scarce", "_running", "requests")

    def __init__(self) -> None:
        self.requests = inf
        self._running, self._fraction, self._fraction_when_scarce = _Mean(), _Mean(), _Mean()

    def scraped(self, signals: Signals, is_fair: bool, step_s: float) -> None:
        """Follow a scrape after `step_s`; `is_fair` if enough were in flight to stand for all."""
        fraction = signals.kv_cache_fraction
        if not fraction or not signals.running:
            return
        is_scarce = fraction >= SCARCE and signals.waiting > 0
        if is_scarce:
            self._fraction_when_scarce.add(fraction, step_s)
        if is_fair or is_scarce:
            self._running.add(signals.running, step_s)
            self._fraction.add(fraction, step_s)
            used = self._fraction_when_scarce.or_else(1.0) / self._fraction.or_else(inf)
            self.requests = SHARE * self._running.or_else(inf) * used if used else inf
