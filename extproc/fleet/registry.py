"""Which backends there are, which of them may be chosen, and for which models.

There is no acknowledgement from Envoy for a cluster that it read from a file, and a header that names a
cluster which it has not loaded is a 503. So a new backend is chosen only `settle_s` after its cluster was
written, and a departing one stops being chosen, drains, and only `settle_s` later loses its cluster.
"""

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence, Set
from math import inf
from statistics import median_high
from types import MappingProxyType

from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.bounds import MAX_BACKENDS
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import Fleet
from extproc.fleet.lost_models import LostModels

MAX_MEMBERS = 2 * MAX_BACKENDS
"""All backends can be replaced at once: departing ones stay members until they have drained."""

Candidates = tuple[Backend, ...]

NO_BASES: Mapping[str, str] = MappingProxyType({})


class Registry:
    """The members of the fleet. Lookups are O(1): the candidates of each model are kept ready."""

    def __init__(self, fleet: Fleet, settle_s: float) -> None:
        self._fleet = fleet
        self._settle_s = settle_s
        self._lost = LostModels()
        self._index()

    @property
    def members(self) -> Sequence[Backend]:
        """All members, departing ones included, in the order in which they joined."""
        return tuple(self._fleet.backends)

    def apply(
        self, endpoints: Iterable[Endpoint], now_s: float, known_to_envoy: Iterable[Endpoint] = ()
    ) -> list[Backend]:
        """Make the fleet consist of `endpoints`: unchanged ones stay as they are, others join or drain.

        Those whose cluster Envoy has already (it survived a restart of ours) are active at once. Returns
        the backends that have joined. Beyond `MAX_MEMBERS` some join only when this is called again.
        """
        wanted = {endpoint.name: endpoint for endpoint in endpoints}
        loaded = {(endpoint.name, endpoint.location) for endpoint in known_to_envoy}
        for member in self._fleet.backends:
            endpoint = wanted.get(member.name)
            if endpoint is None or endpoint.location != member.endpoint.location:
                self._drain(member, now_s)
                continue
            del wanted[endpoint.name]
            if member.lifecycle is Lifecycle.DRAINING:
                member.lifecycle = Lifecycle.ACTIVE
            member.configured(endpoint)
        room = MAX_MEMBERS - len(self._fleet.backends)
        joined = []
        for endpoint in list(wanted.values())[:room]:
            is_loaded = (endpoint.name, endpoint.location) in loaded
            lifecycle = Lifecycle.ACTIVE if is_loaded else Lifecycle.JOINING
            joined.append(self._fleet.join(endpoint, lifecycle, now_s + self._settle_s))
        self._index()
        return joined

    def advance(self, now_s: float) -> bool:
        """Let time pass: joining members become active, drained ones leave. True if one has left."""
        due = [member for member in self._fleet.backends if member.changes_at_s <= now_s]
        joined = [member for member in due if member.lifecycle is Lifecycle.JOINING]
        gone = {member for member in due if member.lifecycle is Lifecycle.DRAINING and member.is_empty}
        for member in joined:
            member.lifecycle = Lifecycle.ACTIVE
        if gone:
            self._fleet.leave(gone)
        if joined or gone:
            self._index()
        return bool(gone)

    def learn_models(
        self, member: Backend, models: frozenset[str], bases: Mapping[str, str] = NO_BASES
    ) -> None:
        """Note what the server says it serves; configured models have precedence.

        `bases` are the models that its adapters belong to.
        """
        known = member.models
        is_new = member.endpoint.models is None and known != models
        if is_new:
            member.models = models
        if bases or member.adapters is not None:
            is_any_new = is_new or member.adapters is None or member.adapters.bases != bases
            member.learn_adapters(bases)
            if is_any_new:
                self._index()
        elif is_new and self._is_any_resolving:
            self._index()
        elif is_new and may_be_chosen(member):
            self._index_again(member, known, models)

    def longest_prompts(self) -> dict[str | None, float]:
        """Return the context of each model, where its servers say how long it is.

        It is the median of theirs, so that none of three can lie about it, and of two the longer. A server
        has the same context for its adapters as for the model that they belong to.
        """
        lengths: dict[str | None, list[float]] = {}
        for member in self._fleet.backends:
            usual = max(member.context_lengths.values(), default=inf)
            for model in member.models or ():
                lengths.setdefault(model, []).append(member.context_lengths.get(model, usual))
        usual_lengths = {model: median_high(found) for model, found in lengths.items()}
        return {model: length for model, length in usual_lengths.items() if length < inf}

    def candidates(self, model: str | None) -> Candidates | None:
        """Return the backends that serve `model`, all active ones for None; None where certainly none does.

        Members that have not said yet which models they serve, or load adapters that they do not list, come
        into question only where no other does.
        """
        if model is None:
            return self._active
        serving = self._candidates.get(model)
        if serving is not None:
            return serving
        return self._of_unlisted_models if self._of_unlisted_models or not self._active else None

    def prefillers(self, model: str | None) -> Candidates:
        """Return the active backends that only prefill, and have said that they serve `model`."""
        if model is None:
            return self.only_prefilling
        return tuple(member for member in self.only_prefilling if lists(member, model))

    def has_lost(self, model: str, now_s: float) -> bool:
        """Return whether a backend that served `model` has left within the last minutes."""
        return self._lost.is_recent(model, now_s)

    def has_served(self, model: str) -> bool:
        """Return whether a backend that served `model` has left, however long ago."""
        return model in self._lost

    def models(self) -> list[str]:
        """Return what the backends that may be chosen say that they serve, adapters included, in order."""
        return sorted(self._candidates)

    def is_listed(self, model: str) -> bool:
        """Return whether a backend that may be chosen has said that it serves `model`."""
        return model in self._candidates

    def is_served(self, model: str) -> bool:
        """Return whether a backend that may be chosen has said that it serves `model`, or will load it."""
        return self.is_listed(model) or self._is_any_resolving

    def backend_named(self, name: str) -> Backend | None:
        """Return the member of that name; of two, not the departing one."""
        return self._by_name.get(name)

    def backend_at(self, address: str) -> Backend | None:
        """Return the member at HOST:PORT; of two, not the departing one."""
        at = (member for member in self._fleet.backends if member.endpoint.address == address)
        return min(at, key=lambda member: member.lifecycle is Lifecycle.DRAINING, default=None)

    def clusters(self) -> list[Endpoint]:
        """Return what Envoy has to have a cluster for; of two with one name, the one that stays."""
        by_name: dict[str, Endpoint] = {}
        for member in self._fleet.backends:
            if member.name not in by_name or member.lifecycle is not Lifecycle.DRAINING:
                by_name[member.name] = member.endpoint
        return list(by_name.values())

    def _drain(self, member: Backend, now_s: float) -> None:
        if member.lifecycle is Lifecycle.DRAINING:
            return
        member.lifecycle = Lifecycle.DRAINING
        member.changes_at_s = now_s + self._settle_s
        self._lost.left(member.models or (), now_s)

    def _index(self) -> None:
        members = self._fleet.backends
        active = [member for member in members if may_be_chosen(member)]
        self.only_prefilling: Candidates = tuple(
            member
            for member in members
            if member.lifecycle is Lifecycle.ACTIVE and member.endpoint.only_prefills
        )
        staying_last = sorted(members, key=lambda member: member.lifecycle is not Lifecycle.DRAINING)
        self._position = {member: index for index, member in enumerate(members)}
        self._by_name = {member.name: member for member in staying_last}
        self._active: Candidates = tuple(active)
        self.speaking_grpc: Candidates = tuple(
            member
            for member in members
            if member.lifecycle is Lifecycle.ACTIVE and member.endpoint.grpc_port is not None
        )
        resolving = [member for member in active if member.endpoint.resolves_adapters]
        self._is_any_resolving = bool(resolving)
        self.has_askable = any(member.endpoint.models is None for member in members)
        self._of_unlisted_models = tuple(
            member for member in active if member.models is None or member.endpoint.resolves_adapters
        )
        self._candidates: dict[str, Candidates] = {
            model: tuple(
                member for member in active if lists(member, model) or (resolving and _loads(member, bases))
            )
            for model, bases in _served(active).items()
        }

    def _index_again(self, member: Backend, known: frozenset[str] | None, models: frozenset[str]) -> None:
        """Follow the models of one active member: of thousands that join, each tells its own."""
        if known is None:
            self._of_unlisted_models = tuple(each for each in self._of_unlisted_models if each is not member)
        for model in (known or frozenset()) - models:
            others = tuple(each for each in self._candidates[model] if each is not member)
            if others:
                self._candidates[model] = others
            else:
                del self._candidates[model]
        for model in models - (known or frozenset()):
            serving = self._candidates.get(model, ())
            at = bisect(serving, self._position[member], key=self._position.__getitem__)
            self._candidates[model] = (*serving[:at], member, *serving[at:])


def _served(active: Iterable[Backend]) -> dict[str, set[str]]:
    """Return all models that are listed, and those that they belong to, where they are adapters."""
    served: dict[str, set[str]] = {}
    for member in active:
        bases = {} if member.adapters is None else member.adapters.bases
        for model in member.models or ():
            of_model = served.setdefault(model, set())
            if model in bases:
                of_model.add(bases[model])
    return served


def _loads(member: Backend, bases: Set[str]) -> bool:
    """Return whether a server will load an adapter that another server lists."""
    return member.endpoint.resolves_adapters and any(lists(member, base) for base in bases)


def may_be_chosen(member: Backend) -> bool:
    """Return whether a member comes into question for requests, as far as it serves their model.

    Calls of gRPC have candidates of their own.
    """
    endpoint = member.endpoint
    return member.lifecycle is Lifecycle.ACTIVE and endpoint.can_answer and endpoint.serves_http


def lists(member: Backend, model: str) -> bool:
    """Return whether a member has said that it serves `model`."""
    return member.models is not None and model in member.models
