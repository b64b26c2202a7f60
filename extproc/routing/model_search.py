"""Requests for models that no backend is known to serve, held while the servers are asked what they serve.

Servers are asked for their models rarely, and adapters are loaded at any time: the first request for one may
come before the list. All requests that come for unknown models are answered by one round of questions,
and rounds are paced where they are asked (`adapters.vllm.model_asking`): whatever clients send, a server is
asked no more often. Requests beyond `MAX_SEARCHING` are refused at once.

A request for the list of all models is held in the same way while a new server has not said its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

from extproc.exchange.messages import Hold, Phase
from extproc.exchange.placement import HeldLease, Placement, Placer
from extproc.fleet.registry import Registry
from extproc.request.request import Request

MAX_SEARCHING = 256
"""Guessed: a flood of unknown names holds no more streams and bodies than that."""

MAX_NAME = 256
"""A longer name is in no list that is taken from a server."""

LONGEST_S = 4.0
"""Guessed: a second until servers may be asked again, two for slow ones, and a margin."""


@dataclass(slots=True, eq=False)
class _Searching(HeldLease):
    """One request that is held; it leaves when its client does."""

    request: Request
    phase: Phase
    _leave: "Callable[[_Searching], None]"

    def _release(self, now_s: float) -> None:
        self._leave(self)


class ModelSearch:
    """The requests that are held; `place` has them placed, or refused, once the servers have been asked.

    Nothing is held until `handle_wanted` is set, which is called when servers are to be asked.
    """

    def __init__(self, registry: Registry, place: Placer) -> None:
        self.handle_wanted: Callable[[], None] | None = None
        self._registry = registry
        self._place = place
        self._next: dict[_Searching, None] = {}
        self._asked: dict[_Searching, None] = {}

    def __len__(self) -> int:
        return len(self._next) + len(self._asked)

    def hold(self, request: Request, phase: Phase) -> Placement | None:
        """Hold a request for an unknown model until servers have been asked; None where that cannot help."""
        model = request.model
        if model is None or len(model) > MAX_NAME or not self._registry.has_askable:
            return None
        is_work = request.has_body or request.api.is_upgrade
        return self.hold_list(request, phase) if is_work else None

    def hold_list(self, request: Request, phase: Phase) -> Placement | None:
        """Hold a request that all servers' models matter to; None where they cannot be asked now."""
        if self.handle_wanted is None or len(self) >= MAX_SEARCHING:
            return None
        searching = _Searching(request, phase, self._leave)
        self._next[searching] = None
        self.handle_wanted()
        return Placement(Hold(LONGEST_S), searching)

    def begin(self) -> None:
        """Note that all servers are asked from now on: what they answer is for those that wait by now."""
        self._asked.update(self._next)
        self._next = {}

    def listed(self, now_s: float) -> None:
        """Place those whose model has been found, while other servers are still asked."""
        for searching in [each for each in self._asked if self._is_found(each)]:
            self._settle(searching, now_s)

    def end(self, now_s: float) -> None:
        """Place or refuse all that the servers have been asked for."""
        for searching in tuple(self._asked):
            self._settle(searching, now_s)

    def _is_found(self, searching: _Searching) -> bool:
        model = searching.request.model
        return model is not None and self._registry.candidates(model) is not None

    def _settle(self, searching: _Searching, now_s: float) -> None:
        self._leave(searching)
        placement = self._place(searching.request, searching.phase, now_s)
        searching.settle(placement)

    def _leave(self, searching: _Searching) -> None:
        self._next.pop(searching, None)
        self._asked.pop(searching, None)
