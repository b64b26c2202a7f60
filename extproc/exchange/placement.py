"""Where a request was placed, and the slot that it holds until its exchange ends."""

from collections.abc import Callable

import msgspec

from extproc.exchange.messages import Instruction, Phase
from extproc.exchange.request import Request


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


class Placement(msgspec.Struct, frozen=True):
    """The instruction that answers the request, and the lease on its backend if it has one."""

    instruction: Instruction
    lease: Lease | None = None


Placer = Callable[[Request, Phase, float], Placement]
"""Places a request now (seconds, monotonic), answering the given phase, and reserves its slot."""
