"""The result of placing a request: an instruction, and what it holds until its exchange ends."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from extproc.exchange.messages import Instruction, Phase
from extproc.request.request import Request


@dataclass(slots=True, eq=False)
class Lease(ABC):
    """A reserved place. It ends once, however often and from wherever it is ended."""

    _is_ended: bool = field(default=False, init=False)

    def end(self, now_s: float) -> None:
        """Give the place back; later calls do nothing."""
        if not self._is_ended:
            self._is_ended = True
            self._release(now_s)

    def answered(self, now_s: float) -> None:  # noqa: B027 - most leases end with the response alone
        """Follow the first token of a response that is no error."""

    @abstractmethod
    def _release(self, now_s: float) -> None:
        """Give the place back; called once."""


@dataclass(slots=True, eq=False)
class HeldLease(Lease):
    """The place of a request in the queue; `respond` is called once, when the request is placed after all."""

    respond: "Callable[[Placement], None] | None" = field(default=None, init=False)

    def settle(self, placement: "Placement") -> None:
        """Answer the request, which is held no more."""
        if self.respond is not None:
            self.respond(placement)


class Placement(msgspec.Struct, frozen=True):
    """The instruction that answers the request, and its lease if it has one.

    Where the instruction is Hold the lease is a `HeldLease`.
    """

    instruction: Instruction
    lease: Lease | None = None


Placer = Callable[[Request, Phase, float], Placement]
"""Places a request now (seconds, monotonic), answering the given phase, and reserves its place."""
