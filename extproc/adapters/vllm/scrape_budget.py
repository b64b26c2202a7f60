"""How many scrapes a second all backends get together, and how these are shared.

Every backend is asked as often as an idle one (`scrape.idle_interval_s`). The busy ones share what is left by
need, none more often than `scrape.busy_interval_s` says: max-min fairness with weights (Bertsekas and
Gallager, Data Networks, 1992, section 6.5). Between two scrapes the router's own counts tell the load; the
more is in flight, the more a number of before is wrong.
"""

from collections.abc import Iterable, Sequence
from math import inf

from extproc.fleet.backend import Backend
from extproc.fleet.signals import ScrapeRule

MAX_PER_S = 1500.0
MAX_CORES = 0.27
"""Required: scrapes of all backends a second, and the share of a core that they get at most, where pages are
long or the machine is slow."""

_WHOLE = 1.75
"""Measured: a scrape takes 1.75 times what is seen of it, for asking and for turns of the event loop."""

_USUAL_S = 8e-5
_WEIGHT = 0.02
_MAX_COST_S = 2e-3
"""Guessed: what is seen of a scrape to begin with, the weight of the newest, and the most that it may count
for: one backend's pages do not slow down the others' scrapes for long."""

DOUBT = 4.0
"""Guessed, in requests: the need of a server whose gauges are no evidence, or that has just started."""

_BURST_S = 0.002
"""Guessed: so much of the budget may be taken at once: requests wait behind scrapes that come together."""

_REVIEWED_EVERY_S = 0.5


def need_of(backend: Backend) -> float:
    """Return how much a busy backend's next scrape is needed, in requests; 0 for an idle one."""
    if not (backend.own or backend.running + backend.waiting):
        return 0.0
    doubt = DOUBT if backend.is_doubted or backend.is_starting else 0.0
    return 1.0 + backend.own + backend.foreign + doubt


def fair_factor(needs: Sequence[float], total: float) -> float:
    """Return the factor with which the needs, cut at 1 each, make up `total`; inf where each gets 1."""
    left, rest = total, sum(needs)
    for index, need in enumerate(sorted(needs, reverse=True)):
        if len(needs) - index <= left:
            return inf
        if need * left <= rest:
            return max(0.0, left / rest)
        left, rest = left - 1.0, rest - need
    return inf


class ScrapeBudget:
    """The budget of one sidecar; times are seconds of one monotonic clock."""

    def __init__(self, rule: ScrapeRule, max_per_s: float = MAX_PER_S) -> None:
        self._max_per_s = max_per_s
        self._idle_per_s = self._usual_idle_per_s = 1.0 / rule.idle_interval_s
        self._busy_per_s = max(1.0 / rule.busy_interval_s, self._idle_per_s)
        self._factor = inf
        self._seen_s = _USUAL_S
        self._due_s = self._reviewed_at_s = -inf

    @property
    def per_s(self) -> float:
        """How many scrapes a second there may be, by what they cost."""
        return min(self._max_per_s, MAX_CORES / (_WHOLE * self._seen_s))

    def spend(self, cpu_s: float) -> None:
        """Note how much CPU a scrape was seen to take."""
        self._seen_s += _WEIGHT * (min(cpu_s, _MAX_COST_S) - self._seen_s)

    def review(self, needs: Iterable[float], now_s: float) -> None:
        """Share the budget anew, by the needs of all backends, where that is due."""
        if now_s < self._reviewed_at_s + _REVIEWED_EVERY_S:
            return
        self._reviewed_at_s = now_s
        all_needs, per_s = list(needs), self.per_s
        self._idle_per_s = min(self._usual_idle_per_s, per_s / max(1, len(all_needs)))
        left_per_s = per_s - len(all_needs) * self._idle_per_s
        more_per_s = max(1e-9, self._busy_per_s - self._idle_per_s)
        self._factor = fair_factor([need for need in all_needs if need], left_per_s / more_per_s)

    def interval_s(self, need: float) -> float:
        """Return how often a backend with this need is asked."""
        share = min(1.0, self._factor * need) if need else 0.0
        return 1.0 / (self._idle_per_s + share * (self._busy_per_s - self._idle_per_s))

    def delay_s(self, now_s: float) -> float:
        """Take a question from the budget, and return the time until it may be asked.

        The shares are those of a moment ago, and a whole fleet may become busy at once.
        """
        self._due_s = max(self._due_s, now_s - _BURST_S) + 1.0 / self.per_s
        return max(0.0, self._due_s - now_s)
