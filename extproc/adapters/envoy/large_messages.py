"""Large messages are read one at a time, and beside everything else.

Reading a body takes the event loop up to 8 ms per MiB. Many large ones that arrive together would keep all
other requests waiting until the last of them is read. So they wait in line, and after each the loop has as
much time for the rest: large messages take half of it at most, and small ones wait for one of them at most.
"""

import asyncio
from collections import deque
from collections.abc import Callable

LARGE_BYTES = 1 << 20
"""Guessed: what is smaller is read in 8 ms, at once."""

MAX_WAITING_BYTES = 128 << 20
"""Guessed: four of the largest bodies that Envoy takes. More are read at once: waiting, they cost memory."""


class LargeMessages:
    """The large messages of one server that are still to be read, in the order of their arrival."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._waiting_bytes = 0

    def read(self, size: int, reading: Callable[[], None]) -> None:
        """Have a message of `size` bytes read: soon, or now where too much waits."""
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            reading()
            return
        self._waiting.append((size, reading))
        self._waiting_bytes += size
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._read_next)

    def _read_next(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        size, reading = self._waiting[0]
        try:
            reading()
        finally:
            self._waiting.popleft()
            self._waiting_bytes -= size
            if self._waiting:
                loop.call_later(loop.time() - began_s, self._read_next)
