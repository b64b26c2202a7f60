"""Shares of the places: while a fleet is nearly full, no tenant gets more than its part.

A tenant alone may have all places. Where others have requests in flight too, the last fifth of the places is
for those with not much more than others: a tenant that comes late finds room, without waiting for the long
streams of one that came before. In `admission.mode: queue` tenants take turns instead.
"""

from collections import Counter

from extproc.fleet.backend import Backend

CROWDED = 0.8
"""Guessed: the share of its places, or of the wait that is allowed, from which a backend is nearly full."""

MANY_TIMES, FEW = 2, 2
"""Guessed: by chance one of several equal tenants has twice as many as the others, and of few some more."""


class TenantShares:
    """The requests in flight of each tenant; nothing is kept of a tenant that has none."""

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return len(self._in_flight)

    def begin(self, tenant: str) -> None:
        """Count a request that is placed."""
        self._in_flight[tenant] += 1
        self._total += 1

    def end(self, tenant: str) -> None:
        """Count a request off."""
        self._total -= 1
        self._in_flight[tenant] -= 1
        if not self._in_flight[tenant]:
            del self._in_flight[tenant]

    def is_used_up(self, tenant: str) -> bool:
        """Return whether the tenant has more in flight than twice the mean of the others, and two more."""
        own, others = self._in_flight[tenant], len(self._in_flight) - (tenant in self._in_flight)
        return others > 0 and (own - FEW) * others > MANY_TIMES * (self._total - own)


def is_crowded(backend: Backend, now_s: float) -> bool:
    """Return whether a backend is nearly full: by its places, its queue, or the prompts ahead."""
    places = min(backend.closed_above, backend.limits.max_active - 1) + 1
    is_behind = backend.prefilled_at_s - now_s > CROWDED * backend.longest_wait_s
    return is_behind or backend.own + backend.foreign >= CROWDED * places
