"""The request of an exchange: read, placed, perhaps held, and its lease given back once.

The part that all kinds of exchanges share, whatever their messages: a request is placed in one step, or
held first, and then settled by the queue.
"""

from collections.abc import Callable, Mapping

from extproc.exchange.messages import Instruction, Phase
from extproc.exchange.placement import HeldLease, Lease, Placement, Placer
from extproc.request.header_rules import USUAL, HeaderRules
from extproc.request.request import read_request
from extproc.request.token_ratio import TokenRatios


class Placing:
    """The part of an exchange that places its request; `is_placed` from the answer on, whatever it was."""

    __slots__ = ("_is_ended", "_is_read", "_lease", "_place", "_ratios", "_rules", "_then", "is_placed")

    def __init__(self, place: Placer, ratios: TokenRatios, rules: HeaderRules = USUAL) -> None:
        self._place = place
        self._ratios = ratios
        self._rules = rules
        self._then: Callable[[Instruction], None] | None = None
        self._lease: Lease | None = None
        self._is_ended = False
        self._is_read = False
        self.is_placed = False

    def end(self, now_s: float) -> None:
        """End the exchange, for whatever reason; calling it again does nothing."""
        self._is_ended = True
        self._then = None
        if self._lease is not None:
            self._lease.end(now_s)

    def then(self, answer: Callable[[Instruction], None]) -> None:
        """Set the callback for the second answer, after Hold was the first; not called after the end."""
        self._then = answer

    def _placed(
        self,
        headers: Mapping[str, str],
        body: bytes | None,
        phase: Phase,
        now_s: float,
        endpoints: frozenset[str] | None = None,
    ) -> Instruction:
        request = read_request(headers, body, self._ratios, self._rules, endpoints=endpoints)
        self._is_read = True
        placement = self._place(request, phase, now_s)
        self._lease = placement.lease
        if isinstance(placement.lease, HeldLease):
            placement.lease.respond = self._settle
        else:
            self.is_placed = True
        return placement.instruction

    def _settle(self, placement: Placement) -> None:
        self._lease = placement.lease
        self.is_placed = True
        then, self._then = self._then, None
        if then is not None:
            then(placement.instruction)
