"""Flow-control windows (RFC 9113 §5.2, §6.9)."""

from typing import Final

MAX_WINDOW: Final = 2**31 - 1
INITIAL_WINDOW: Final = 65_535
"""§6.9.2: of every connection and, until SETTINGS say otherwise, of every stream."""


class ReceiveWindow:
    """What the peer may still send.

    It is refilled at half: as little as one WINDOW_UPDATE for many frames, and never a peer that has to wait.
    """

    __slots__ = ("_size", "left")

    def __init__(self, size: int) -> None:
        self._size = self.left = size

    def take(self, size: int) -> int:
        """Count `size` octets, at most `left`; returns the increment to announce, 0 if there is time."""
        self.left -= size
        if self.left > self._size >> 1:
            return 0
        increment = self._size - self.left
        self.left = self._size
        return increment
