"""Which backends there are, which of them may be chosen, and for which models.

There is no acknowledgement from Envoy for a cluster that it read from a file, and a header that names a
cluster which it has not loaded is a 503. So a new backend is chosen only `settle_s` after its cluster was
written, and a departing one stops being chosen, drains, and only `settle_s` later loses its cluster.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from extproc.fleet.backend import Endpoint, Lifecycle
from extproc.fleet.fleet import CAPACITY, Fleet
from extproc.fleet.state import Slots

_NOBODY: Slots = ()


@dataclass(slots=True)
class Member:
    """A backend and its slot; `models` is None until they are known."""

    backend: Endpoint
    slot: int
    membership: Lifecycle
    models: frozenset[str] | None
    changes_at_s: float


class Registry:
    """The members of the fleet. Lookups are O(1): the candidates of each model are kept ready."""

    def __init__(self, fleet: Fleet, settle_s: float) -> None:
        self._fleet = fleet
        self._settle_s = settle_s
        self._members: list[Member] = []
        self._free_slots = list(range(CAPACITY - 1, -1, -1))
        self._candidates: dict[str, Slots] = {}
        self._everyone = self._of_unknown_models = _NOBODY
        self._names: dict[int, tuple[str, str]] = {}
        self._slots_by_name: dict[str, int] = {}

    @property
    def members(self) -> Sequence[Member]:
        """All members, departing ones included, in the order in which they joined."""
        return tuple(self._members)

    def apply(
        self, backends: Iterable[Endpoint], now_s: float, known_to_envoy: Iterable[Endpoint] = ()
    ) -> list[int]:
        """Make the fleet consist of `backends`: unchanged ones stay as they are, others join or drain.

        Those whose cluster Envoy has already (it survived a restart of ours) are active at once. Returns
        the slots of those that have joined, which may have been another backend's before. Where departing
        members leave too few of them, some join only when this is called again.
        """
        wanted = {backend.name: backend for backend in backends}
        loaded = {(backend.name, backend.address) for backend in known_to_envoy}
        for member in self._members:
            backend = wanted.get(member.backend.name)
            if backend is None or backend.address != member.backend.address:
                if member.membership != Lifecycle.DRAINING:
                    member.membership = Lifecycle.DRAINING
                    member.changes_at_s = now_s + self._settle_s
                continue
            del wanted[backend.name]
            if member.membership == Lifecycle.DRAINING:
                member.membership = Lifecycle.ACTIVE
            member.models = member.models if backend.models is None else backend.models
            member.backend = backend
        joined = [
            self._join(backend, now_s, (backend.name, backend.address) in loaded)
            for backend in list(wanted.values())[: len(self._free_slots)]
        ]
        self._index()
        return joined

    def advance(self, now_s: float) -> bool:
        """Let time pass: joining members become active, drained ones leave. True if one has left."""
        due = [member for member in self._members if member.changes_at_s <= now_s]
        joined = [member for member in due if member.membership == Lifecycle.JOINING]
        gone = [
            member
            for member in due
            if member.membership == Lifecycle.DRAINING and self._fleet.states[member.slot].own == 0
        ]
        for member in joined:
            member.membership = Lifecycle.ACTIVE
        for member in gone:
            self._members.remove(member)
            self._free_slots.append(member.slot)
        if gone:
            self._fleet.leave(member.slot for member in gone)
        if joined or gone:
            self._index()
        return bool(gone)

    def learn_models(self, slot: int, models: frozenset[str]) -> None:
        """The server has said what it serves; configured models have precedence."""
        for member in self._members:
            if member.slot == slot and member.backend.models is None and member.models != models:
                member.models = models
                self._index()

    def candidates(self, model: str | None) -> Slots | None:
        """The slots that serve `model`; all active ones for None. None where nobody serves it, for certain.

        Members that have not said yet what they serve come into question only where no other does.
        """
        if model is None:
            return self._everyone
        serving = self._candidates.get(model)
        if serving is not None:
            return serving
        return self._of_unknown_models if self._of_unknown_models or not self._everyone else None

    def is_served(self, model: str) -> bool:
        """Whether a backend that may be chosen has said that it serves `model`."""
        return model in self._candidates

    def name_of(self, slot: int) -> str:
        """The name of the member in a slot."""
        return self._names[slot][0]

    def name_and_address_of(self, slot: int) -> tuple[str, str]:
        """The name of the member in a slot, and its HOST:PORT."""
        return self._names[slot]

    def slot_of(self, name: str) -> int | None:
        """The slot of the member of that name; of two, not the departing one."""
        return self._slots_by_name.get(name)

    def clusters(self) -> list[Endpoint]:
        """The backends that Envoy has to have a cluster for; of two with one name, the one that stays."""
        by_name: dict[str, Endpoint] = {}
        for member in self._members:
            if member.backend.name not in by_name or member.membership != Lifecycle.DRAINING:
                by_name[member.backend.name] = member.backend
        return list(by_name.values())

    def _join(self, backend: Endpoint, now_s: float, is_known_to_envoy: bool) -> int:
        slot = self._free_slots.pop()
        self._fleet.join(slot, backend.max_num_seqs)
        membership = Lifecycle.ACTIVE if is_known_to_envoy else Lifecycle.JOINING
        self._members.append(Member(backend, slot, membership, backend.models, now_s + self._settle_s))
        return slot

    def _index(self) -> None:
        active = [member for member in self._members if member.membership == Lifecycle.ACTIVE]
        models = {model for member in active for model in member.models or ()}
        self._names = {member.slot: (member.backend.name, member.backend.address) for member in self._members}
        staying_last = sorted(self._members, key=lambda member: member.membership != Lifecycle.DRAINING)
        self._slots_by_name = {member.backend.name: member.slot for member in staying_last}
        self._everyone = _slots(active)
        self._of_unknown_models = _slots([member for member in active if member.models is None])
        self._candidates = {
            model: _slots([member for member in active if member.models and model in member.models])
            for model in models
        }


def _slots(members: list[Member]) -> Slots:
    return tuple(member.slot for member in members)
