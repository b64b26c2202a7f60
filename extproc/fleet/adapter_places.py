"""The adapters (LoRA) that one server computes with, and whether it has a place for one more.

A server computes with `places` adapters at once (vLLM's `--max-loras`). A request for another one waits until
one of those has no request left there, however idle the server is otherwise. Its gauge tells, late, which
adapters have requests there, those of others included; those of our own requests count from the moment when
they are placed. An adapter whose requests have ended stays in its place until that is needed: then its
weights do not have to be loaded again.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from math import inf

MAX_ADAPTERS = 1024
"""As many are taken from a server's list of models; more that its gauge names are not known as adapters."""


@dataclass(frozen=True, slots=True)
class AdaptersSeen:
    """A server's gauges of its adapters: whose requests run, whose wait, and how many can run at once."""

    running: frozenset[str]
    waiting: frozenset[str] = frozenset()
    places: float = inf

    @property
    def named(self) -> frozenset[str]:
        """All that have requests there."""
        return self.running | self.waiting

    @property
    def is_queue_for_places(self) -> bool:
        """Whether requests wait because all places for adapters are taken: that tells nothing of the rest."""
        return len(self.running) >= self.places and not self.waiting <= self.running


class AdapterWait(Enum):
    """The extra wait of a request: nothing, for the weights, or for a place."""

    NOTHING = auto()
    LOADING = auto()
    PLACE = auto()


@dataclass(slots=True, eq=False)
class AdapterPlaces:
    """One server's; `bases` are the models that its listed adapters belong to.

    With `takes_any` it loads what it has not `listed` by itself.
    """

    takes_any: bool = False
    listed: Set[str] = frozenset()
    bases: Mapping[str, str] = field(default_factory=dict)
    places: float = inf
    _active: frozenset[str] = frozenset()
    _known: set[str] = field(default_factory=set)
    _own: dict[str, int] = field(default_factory=dict)
    _counted: dict[object, str] = field(default_factory=dict)
    _waited: set[object] = field(default_factory=set)
    _kept: dict[str, None] = field(default_factory=dict)

    def scraped(self, seen: AdaptersSeen | None, *, is_idle: bool) -> None:
        """Take in what a scrape tells; the last names of a server that is idle stay in its gauge."""
        if seen is None:
            self._active = frozenset()
            return
        self.places = seen.places
        if blocked := seen.waiting - seen.running:
            self._waited.update(request for request, model in self._counted.items() if model in blocked)
        self._active = frozenset() if is_idle else seen.named
        self._known.update(islice(seen.named - self._known, MAX_ADAPTERS - len(self._known)))

    def is_adapter(self, model: str) -> bool:
        """Return whether requests for `model` need a place."""
        return model in self.bases or model in self._known or (self.takes_any and model not in self.listed)

    def is_running(self, model: str) -> bool:
        """Return whether an adapter has requests here, as far as is known."""
        return model in self._own or model in self._active

    def begin(self, request: object, model: str | None) -> None:
        """Count a request that is placed here, if it is for an adapter."""
        if model is None or not self.is_adapter(model):
            return
        if self.wait(model, is_fresh=True) is AdapterWait.PLACE:
            self._waited.add(request)
        self._counted[request] = model
        self._own[model] = self._own.get(model, 0) + 1
        self._kept.pop(model, None)
        self._kept[model] = None
        if len(self._kept) > min(self.places, MAX_ADAPTERS):
            del self._kept[next(iter(self._kept))]

    def end(self, request: object) -> bool:
        """Count a request off, if it was counted; True where it is known to have waited for a place."""
        model = self._counted.pop(request, None)
        if model is None:
            return False
        left = self._own.pop(model) - 1
        if left:
            self._own[model] = left
        has_waited = request in self._waited
        self._waited.discard(request)
        return has_waited

    def wait(self, model: str, *, is_fresh: bool) -> AdapterWait:
        """Return what a request for an adapter has to wait for; a gauge that is not fresh tells nothing."""
        active = self._own.keys() | self._active if is_fresh else self._own.keys()
        if model in active:
            return AdapterWait.NOTHING
        if len(active) >= self.places:
            return AdapterWait.PLACE
        return AdapterWait.NOTHING if model in self._kept else AdapterWait.LOADING
