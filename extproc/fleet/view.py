"""The candidates at one moment: the input of a decision.

Whatever is looked at for few of them is worked out when it is asked for. Guard and layers narrow a view to
the backends that are left.
"""

from collections.abc import Mapping, Sequence
from math import isinf, isnan
from types import MappingProxyType
from typing import Annotated

import msgspec

from extproc.fleet.backend import Backend
from extproc.fleet.fleet_averages import Watched
from extproc.fleet.signals import running_now
from extproc.fleet.wait_terms import ExpectedWait
from extproc.fleet.zone import Zone

Word = Annotated[str, msgspec.Meta(max_length=64)]
NO_ESTIMATE = ExpectedWait()
Requests = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Age = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
MAX_TOKENS = 1e7
"""Ten million: no context is longer."""
Tokens = Annotated[float, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class CandidateFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The state of one backend when a request was placed: part of the facts of the decision.

    Loads are in requests; `scrape_age_s` is None before the first scrape. `num_running` is the estimate of
    the running requests for now; `expected_cached_tokens` of the request's prompt are expected in the
    backend's prefix cache, and `ahead_tokens` of other prompts have to be computed before its own. `estimate`
    is what was expected of it before any model had a say.
    """

    zone: Word
    num_running: Requests
    load: Requests
    num_waiting: Requests
    kv_cache_fraction: Share
    own: Requests
    foreign: Requests
    scrape_age_s: Age | None = None
    expected_cached_tokens: Tokens = 0.0
    ahead_tokens: Tokens = 0.0
    estimate: ExpectedWait = NO_ESTIMATE


LOW, MEDIUM = Zone.LOW, Zone.MEDIUM
"""By names of their own: Python 3.11 looks the member of an enum up in 0.1 µs."""

NOTHING_CACHED: Mapping[Backend, float] = MappingProxyType({})


NOTHING_WATCHED = Watched()


class FleetView:
    """Some backends, for one decision at `now_s`.

    Scrapes from before `fresh_from_s` are no signal. `cached_tokens` of the request's prompt are expected in
    prefix caches; `near_tokens` has also those of which only the request's session tells, for the comparison
    of backends. Some backends of the fleet are `watched`. A view describes a moment: with the next event it
    may be wrong.
    """

    __slots__ = ("_loads", "backends", "cached_tokens", "fresh_from_s", "near_tokens", "now_s", "watched")

    def __init__(
        self,
        backends: Sequence[Backend],
        now_s: float,
        fresh_from_s: float,
        cached_tokens: Mapping[Backend, float] = NOTHING_CACHED,
        near_tokens: Mapping[Backend, float] | None = None,
        watched: Watched = NOTHING_WATCHED,
    ) -> None:
        self.fresh_from_s = fresh_from_s
        self.now_s = now_s
        self.backends = backends
        self.cached_tokens = cached_tokens
        self.near_tokens = cached_tokens if near_tokens is None else near_tokens
        self.watched = watched
        self._loads: list[float] | None = None

    @property
    def loads(self) -> list[float]:
        """The load of each; it is worked out once, and only where it is asked for."""
        if self._loads is None:
            fresh_from_s = self.fresh_from_s
            self._loads = [
                each.load if each.scraped_at_s >= fresh_from_s else each.own for each in self.backends
            ]
        return self._loads

    def __len__(self) -> int:
        return len(self.backends)

    def admitting(self) -> "FleetView":
        """Return the view of those that do not fail."""
        now_s = self.now_s
        return self.narrowed([each for each in self.backends if each.breaker.admits_at_s <= now_s])

    def admitting_bodyless(self) -> "FleetView":
        """Return the view of those that may take a request without a body, and have the fewest of these."""
        admitting = self.admitting()
        least = min((backend.bodyless for backend in admitting.backends), default=0)
        return admitting.narrowed(
            [
                backend
                for backend in admitting.backends
                if backend.bodyless == least and least < backend.limits.max_active and not backend.is_asleep
            ]
        )

    def unhurried(self) -> "FleetView":
        """Return the view of those that do not pause and have room in their window, as far as there are any.

        Newcomers among themselves have no window.
        """
        starting, now_s = self.watched.starting, self.now_s
        awake = [
            each for each in self.backends if each not in starting or starting[each].begins_at_s <= now_s
        ]
        is_any_settled = any(each not in starting for each in awake)
        ready = [
            each
            for each in awake
            if (start := starting.get(each)) is None
            or each.own < start.window
            or not (is_any_settled or start.has_refused)
        ]
        return self.narrowed(ready or awake or self.backends)

    def narrowed(self, backends: Sequence[Backend]) -> "FleetView":
        """Return the view of some of the backends."""
        if len(backends) == len(self.backends):
            return self
        fresh_from_s, cached_tokens = self.fresh_from_s, self.cached_tokens
        return FleetView(backends, self.now_s, fresh_from_s, cached_tokens, self.near_tokens, self.watched)

    def is_any_below_limit(self) -> bool:
        """Return whether a backend may hold another request, its queue aside."""
        return any(
            load <= backend.limits.full_above for backend, load in zip(self.backends, self.loads, strict=True)
        )

    def load(self, backend: Backend) -> float:
        """Return own and foreign requests in flight; a stale scrape tells nothing of the foreign ones."""
        return backend.load if self.is_fresh(backend) else backend.own

    def is_fresh(self, backend: Backend) -> bool:
        """Return whether the last good scrape is young enough to be a signal."""
        return backend.scraped_at_s >= self.fresh_from_s

    def is_alive(self, backend: Backend) -> bool:
        """Return whether the last scrape was answered, and a moment ago."""
        return self.is_fresh(backend) and not backend.is_refusing

    def has_room(self, backend: Backend) -> bool:
        """Return whether the backend is not saturated: by its load, and by the prompts ahead."""
        return self.load(backend) <= backend.closed_above and not self._is_backlog_long(backend)

    def facts(self, backend: Backend, estimate: ExpectedWait = NO_ESTIMATE) -> CandidateFacts:
        """Return all that is known of one of them, as it is recorded."""
        is_fresh = self.is_fresh(backend)
        own, kv_cache_fraction = backend.own, backend.kv_cache_fraction
        foreign = backend.foreign if is_fresh else 0.0
        load, change = own + foreign, own - backend.own_at_scrape
        age_s = self.now_s - backend.scraped_at_s
        cached_tokens, ahead_tokens = self.cached_tokens.get(backend, 0.0), self._ahead_tokens(backend)
        return CandidateFacts(
            zone=self._zone(backend, load, estimate),
            num_running=running_now(backend.running, change, load, backend.running_limit, is_fresh),
            load=load,
            num_waiting=backend.waiting,
            kv_cache_fraction=0.0 if isnan(kv_cache_fraction) else kv_cache_fraction,
            own=own,
            foreign=foreign,
            scrape_age_s=None if isinf(age_s) else age_s,
            expected_cached_tokens=cached_tokens if cached_tokens < MAX_TOKENS else MAX_TOKENS,
            ahead_tokens=ahead_tokens if ahead_tokens < MAX_TOKENS else MAX_TOKENS,
            estimate=estimate,
        )

    def _ahead_tokens(self, backend: Backend) -> float:
        ahead_s = backend.prefilled_at_s - self.now_s
        return ahead_s / backend.pace.token_s if ahead_s > 0.0 else 0.0

    def _is_backlog_long(self, backend: Backend) -> bool:
        return backend.prefilled_at_s - self.now_s > backend.longest_wait_s

    def _zone(self, backend: Backend, load: float, estimate: ExpectedWait) -> Zone:
        if load > backend.closed_above or self._is_backlog_long(backend):
            return Zone.SATURATED
        return LOW if estimate.ttft_s < backend.low_s else MEDIUM
