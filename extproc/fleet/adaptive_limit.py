"""A backend's limit of requests in flight, found by itself: `guard.max_active: auto`.

Throughput over what is in flight rises up to the knee and is level beyond. By Little's law it is what runs at
once divided by the time that a request runs, and that is the form in which scrapes show it: up to the knee
all that is in flight runs, and beyond it running grows no more, whatever is added. The limit is found as BBR
finds what a path delivers (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 2016):

- The knee is the most that was seen to run. All that disturbs can only make it less: bursts, prompts
  that wait for the computing of others, gauges that lag. How fast the machine is does not matter.
- A limit at the knee would never see beyond it. So from time to time a little more is let in, as long as
  running follows, and then for some seconds. From the start on it is the same: there is no other search.
- The knee falls where, for seconds, more was in flight than ever ran meanwhile; the most is then that.
- Where KV memory is the bound the most that ever ran were some very short ones. The number that would run
  with all of the memory in use is a second limit (`MemoryBound`).

Response times, which Netflix's Gradient2, Envoy's adaptive concurrency filter and TCP Vegas compare with the
shortest ones, tell less here: clients that come back in bursts (`admission.mode: reject`) make prompts wait
for each other's computing as long as for a place.

A limit that no load comes near, or of a backend whose metrics cannot be read, stays as it is.
"""

from dataclasses import dataclass
from math import exp, inf

from extproc.fleet.bounds import Count
from extproc.fleet.signals import Signals

SCARCE = 0.8
"""Guessed: with so much in use a prompt of usual length may have to wait for memory."""

SHARE = 1.12
"""Measured in the twin, see benchmarks/README.md: the median of TTFT bends at 1.0 to 1.2 of what fits in on
average. A request that finds no place soon finds one, as long as most are in."""

FORGETTING_S = 30.0
"""Guessed: some lifetimes of requests."""

ENOUGH_S = 5.0
"""Guessed: after less nothing is known."""


class _Mean:
    """The mean of the values seen, slowly forgotten; `seen_s` is its weight."""

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
    """Estimates how many `requests` the KV memory holds, before it is full; inf where that is not known.

    Requests have more or less of it, so how many fit changes by the second, and the largest number that ever
    ran at once is luck. But the number that would run with the memory full is known at any time:

        running / fraction in use * fraction in use while a request waits for memory

    The last is less than one: the next in line is sometimes long. All are averaged where the batch is full,
    which is near the limit, or where a request waits: a few requests at low load predict nothing.
    """

    __slots__ = ("_fraction", "_fraction_when_scarce", "_running", "requests")

    def __init__(self) -> None:
        self.requests = inf
        self._running, self._fraction, self._fraction_when_scarce = _Mean(), _Mean(), _Mean()

    def scraped(self, signals: Signals, is_fair: bool, step_s: float) -> None:
        """Take in gauges that held for `step_s`; `is_fair` if enough were in flight to stand for all."""
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


START = 96
"""Guessed: where the search begins, within the bounds. With little a sidecar that starts anew before busy
servers would refuse what they can take; until more is known the limit of the wait holds."""

PROBE_GAIN, PROBE_MORE = 1.1, 1
"""Guessed: probing lets in this many times the knee, and one more; BBR's 1.25 makes a longer queue."""

PROBE_S = 2.0
"""Guessed: probing ends when more than the knee was in flight for this time, and running did not follow."""

CRUISE_S = 30.0
"""Guessed: the time at the limit between two probes."""

FULL = 0.7
"""Guessed: at this share of the limit it binds; with `reject` a backend comes back at 80 % of it."""

FAIR = 0.3
"""Guessed: at this share of the limit the requests there are a fair sample of all. With more only moments
count in which many came together, and these are those with long prompts."""

PROOF_S = 10.0
"""Guessed: for this time more has to be in flight than ran at any moment, for the knee to fall."""

WINDOW_S = 30.0
"""Guessed: after that what ran is forgotten, as far as the knee is to fall."""

MAX_STEP_S = 1.0
"""Between two scrapes that lie further apart it is not known what was there."""


@dataclass(frozen=True, slots=True)
class AdaptiveRule:
    """The bounds between which `guard.max_active: auto` finds a backend's limit."""

    min_active: Count = 4  # guessed: fewer answers at a time tell too little about the server
    max_active: Count = 1024  # guessed: four times vLLM's default of max_num_seqs

    def __post_init__(self) -> None:
        if self.min_active > self.max_active:
            raise ValueError("min_active must not be larger than max_active")

    @property
    def start(self) -> int:
        """The first limit."""
        return max(self.min_active, min(START, self.max_active))


class AdaptiveLimit:
    """One backend's `limit`, changed by every scrape."""

    def __init__(self, rule: AdaptiveRule) -> None:
        self.limit = float(rule.start)
        self._rule = rule
        self._knee = float(rule.start)
        self._memory = MemoryBound()
        self._before = Signals(0.0, 0.0)
        self._scraped_at_s = -inf
        self._is_probing = True
        self._phase_s = 0.0  # of which the phase is made: in flight beyond the knee, or near the limit
        self._most = self._window_s = self._waited_s = 0.0

    def scraped(self, signals: Signals, own: int, now_s: float) -> None:
        """Take in a scrape, and the smallest number of our own in flight during the last second."""
        step_s = max(0.0, min(now_s - self._scraped_at_s, MAX_STEP_S))
        self._scraped_at_s = now_s
        before, self._before = self._before, signals
        # What one scrape alone says may be wrong, or a moment's.
        running = min(before.running, signals.running)
        in_flight = max(own, running + min(before.waiting, signals.waiting))
        is_full = in_flight >= FULL * self.limit
        self._memory.scraped(signals, in_flight >= FAIR * self.limit, step_s)
        self._fall(running, in_flight, step_s)
        self._rise(running, in_flight, is_full, step_s)
        probed = PROBE_GAIN * self._knee + PROBE_MORE if self._is_probing else self._knee
        found = min(probed, self._memory.requests)
        self.limit = max(self._rule.min_active, min(self._rule.max_active, found))

    def _fall(self, running: float, in_flight: float, step_s: float) -> None:
        """Lower the limit, if less has run for long enough."""
        self._window_s += step_s
        if running > self._most:
            self._most, self._waited_s = running, 0.0
        elif in_flight >= PROBE_GAIN * self._most + PROBE_MORE:
            self._waited_s += step_s
        is_proven = self._waited_s >= PROOF_S
        if is_proven and self._most > 0:  # A gauge that reads 0 for ever is no gauge.
            self._knee = self._most
            self._is_probing, self._phase_s = False, 0.0
        if is_proven or self._window_s >= WINDOW_S:
            self._most, self._window_s, self._waited_s = running, 0.0, 0.0

    def _rise(self, running: float, in_flight: float, is_full: bool, step_s: float) -> None:
        """Raise the limit at once if more runs; else begin to probe, or stop probing."""
        if running > self._knee:
            self._knee = running
            if self._is_probing:
                self._phase_s = 0.0
        if in_flight > self._knee if self._is_probing else is_full:
            self._phase_s += step_s
        if self._phase_s >= (PROBE_S if self._is_probing else CRUISE_S):
            self._is_probing, self._phase_s = not self._is_probing, 0.0
