"""Flow-control windows (RFC 9113 §5.2, §6.9)."""

from typing import Final

MAX_WINDOW: Final = 2**31 - 1
INITIAL_WINDOW: Final = 65_535
"""§6.9.2: of every connection and, until SETTINGS say otherwise, of every stream."""


class ReceiveWindow:
    """What the peer may still send: `left`, which is counted down by whoever receives.

    It is refilled at half: as little as one WINDOW_UPDATE for many frames, and never a peer that has to wait.
    """

    __slots__ = ("_size", "half", "left")

    def __init__(self, size: int) -> None:
        self._size = self.left = size
        self.half = size >> 1

    def refill(self) -> int:
        """The window is whole again; returns the increment to announce."""
        increment = self._size - self.left
        self.left = self._size
        return increment
