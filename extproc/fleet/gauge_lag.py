"""How old the gauges of a backend are when they are read, learned from its own requests in flight.

A server counts its requests when it plans an iteration, and says so later. So a scrape shows the own requests
that were in flight some tenths of a second before, and those of others. The age that fits best is the one by
which both rise and fall together: there the difference changes least from one scrape to the next. Requests of
others change it as much at any age.
"""

from dataclasses import dataclass, field

from extproc.fleet.own_history import OwnHistory

USUAL_LAG_S = 0.4
"""Measured on vLLM: gauges lag by 0.3 to 0.5 s. It counts until an age is learned."""

AGES_S = tuple(step / 20 for step in range(17))
"""From 0 to 0.8 s, the usual one among them; guessed."""

MIN_SCRAPES = 50
"""Guessed: scrapes around which requests came or ended; 5 s of traffic."""

_MEMORY = 300
"""Guessed, in scrapes: half a minute."""

_EVERY = 10
"""Guessed: of this many scrapes two are looked at once there were enough, since that takes time."""

_NEEDED_GAIN = 0.1
"""Guessed: the share by which another age has to fit better, so that noise changes nothing."""


@dataclass(slots=True, eq=False)
class GaugeLag:
    """The age of one backend's gauges, `lag_s`."""

    lag_s: float = USUAL_LAG_S
    _scrapes: int = 0
    _turn: int = 0
    _differences: list[float] | None = None
    _changes: list[float] = field(default_factory=lambda: [0.0] * len(AGES_S))

    def scraped(self, requests: float, history: OwnHistory, now_s: float) -> None:
        """Learn from a scrape that shows this many requests, running and waiting."""
        self._turn = (self._turn + 1) % _EVERY
        is_learned = self._scrapes >= _MEMORY and self._turn > 1  # two in a row are compared
        if is_learned or history.changed_at_s < now_s - AGES_S[-1]:  # else all ages fit
            self._differences = None
            return
        own_at, before = history.own_at, self._differences
        self._differences = now = [requests - own_at(now_s - age_s) for age_s in AGES_S]
        if before is None:
            return
        self._scrapes += 1
        weight = max(1.0 / self._scrapes, 1.0 / _MEMORY)
        self._changes = changes = [
            known + weight * ((one - other) ** 2 - known)
            for known, one, other in zip(self._changes, now, before, strict=True)
        ]
        if self._scrapes >= MIN_SCRAPES:
            best = changes.index(least := min(changes))
            if least < (1 - _NEEDED_GAIN) * changes[AGES_S.index(self.lag_s)]:
                self.lag_s = AGES_S[best]
