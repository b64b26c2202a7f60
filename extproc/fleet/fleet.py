"""The fleet: the backends that are members, and what they have in common."""

from collections.abc import Mapping, Sequence, Set

from extproc.fleet.adapter_affinity import near_tokens
from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet_averages import FleetAverages
from extproc.fleet.fleet_rules import FleetRules
from extproc.fleet.sent_prefixes import SentPrefixes
from extproc.fleet.session_homes import SessionHomes
from extproc.fleet.stored_responses import StoredResponses
from extproc.fleet.view import NOTHING_CACHED, FleetView


class Fleet:
    """All members, departing ones included, in the order in which they joined; see `fleet.registry`."""

    def __init__(self, rules: FleetRules) -> None:
        self.backends: list[Backend] = []
        self.prefixes = SentPrefixes()
        self.sessions = SessionHomes()
        self.responses = StoredResponses()
        self._rules = rules
        self._averages = FleetAverages()

    @property
    def has_adapters(self) -> bool:
        """Whether a server has or had adapters."""
        return self._averages.has_adapters

    def adapter_tokens(
        self, model: str, backends: Sequence[Backend], now_s: float, near: Mapping[Backend, float]
    ) -> Mapping[Backend, float]:
        """Return `near` less what waiting for an adapter stands for; see `fleet.adapter_affinity`."""
        return near_tokens(model, backends, near, now_s - self._rules.stale_after_s)

    def view(
        self,
        backends: Sequence[Backend],
        now_s: float,
        cached_tokens: Mapping[Backend, float] = NOTHING_CACHED,
        near_tokens: Mapping[Backend, float] | None = None,
    ) -> FleetView:
        """Return what is known of some backends now; nothing is changed by looking."""
        fresh_from_s = now_s - self._rules.stale_after_s
        return FleetView(backends, now_s, fresh_from_s, cached_tokens, near_tokens, self._averages.watched)

    def join(
        self, endpoint: Endpoint, lifecycle: Lifecycle = Lifecycle.ACTIVE, changes_at_s: float = 0.0
    ) -> Backend:
        """Add a backend, of which nothing is known."""
        backend = Backend(endpoint, self._rules, self._averages, lifecycle, changes_at_s)
        self.backends.append(backend)
        self._averages.watched.members = len(self.backends)
        return backend

    def review(self, now_s: float) -> None:
        """Note which backends are due for a request and which have started, also without metrics."""
        for backend in self.backends:
            backend.review(now_s)

    def leave(self, gone: Set[Backend]) -> None:
        """Drop backends; what was learned of them is no measure for the others any more."""
        self.backends = [backend for backend in self.backends if backend not in gone]
        self._averages.watched.members = len(self.backends)
        self.prefixes.drop(gone)
        self.sessions.drop(gone)
        self.responses.drop(gone)
        self._averages.drop(gone)

    def scrape_hung(self, backend: Backend, now_s: float) -> None:
        """Note a scrape without an answer in time.

        The backend may be frozen where it holds requests of ours and others do answer.
        """
        if backend.own > 0 and any(other.is_fresh(now_s) for other in self.backends):
            backend.scrape_refused(now_s)
