"""Where a request was placed, and the slot that it holds until its exchange ends; or that it waits."""

from collections.abc import Callable

import msgspec

from extproc.exchange.messages import Instruction, Phase
from extproc.request.request import Request


class Lease:
    """A reserved in-flight slot. It ends once, however often and from wherever it is ended."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[float], None]) -> None:
        self._release: Callable[[float], None] | None = release

    def end(self, now_s: float) -> None:
        """Give the slot back; later calls do nothing."""
        release, self._release = self._release, None
        if release is not None:
            release(now_s)


class Ticket:
    """What a request that is held has in its hand: `tell` is called once, when it is placed after all."""

    __slots__ = ("tell",)

    def __init__(self) -> None:
        self.tell: Callable[[Placement], None] | None = None

    def settle(self, placement: "Placement") -> None:
        """It waits no more."""
        if self.tell is not None:
            self.tell(placement)


class Placement(msgspec.Struct, frozen=True):
    """The instruction that answers the request, and the lease on its backend if it has one.

    With a `ticket` the instruction is Hold, and the lease is on the place in the queue.
    """

    instruction: Instruction
    lease: Lease | None = None
    ticket: Ticket | None = None


Placer = Callable[[Request, Phase, float], Placement]
"""Places a request now (seconds, monotonic), answering the given phase, and reserves its slot."""
