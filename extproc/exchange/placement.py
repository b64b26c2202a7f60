"""The result of placing a request: an instruction, and what it holds until its exchange ends."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from extproc.exchange.messages import Instruction, Phase
from extproc.request.request import Request


class Lease(ABC):
    """A reserved place. It ends once, however often and from wherever it is ended."""

    __slots__ = ("_is_ended",)

    def __init__(self) -> None:
        self._is_ended = False

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


class HeldLease(Lease):
    """The place of a request in the queue; `respond` is called once, when the request is placed after all."""

    __slots__ = ("respond",)

    def __init__(self) -> None:
        super().__init__()
        self.respond: Callable[[Placement], None] | None = None


class Placement(msgspec.Struct, frozen=True):
    """The instruction that answers the request, and its lease if it has one.

    Where the instruction is Hold the lease is a `HeldLease`.
    """

    instruction: Instruction
    lease: Lease | None = None


Placer = Callable[[Request, Phase, float], Placement]
"""Places a request now (seconds, monotonic), answering the given phase, and reserves its place."""
