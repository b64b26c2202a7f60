"""The entries of the access log that are still to be learned from.

Envoy sends what has ended within 50 ms in one message. Under load these are some hundred entries, and to
learn from all of them takes the event loop 5 ms or more. No request waits for that, so none has to wait
behind it: some entries are handled at once, and the others in turns of the loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from extproc.outcomes.outcome import LogEntry

AT_ONCE = 4
"""Guessed: they take less than half a millisecond. The first of them are not put off: a client's next request
may be about the stored response that they tell of.
"""

MAX_WAITING_BYTES = 1 << 20
"""Guessed: some thousand entries. Where more wait, all are handled at once: they cost memory."""


class LogQueue:
    """Messages of which entries wait, in the order of their arrival; `handle` gets some entries at a time."""

    def __init__(self, handle: Callable[[Iterable[LogEntry]], None]) -> None:
        self._handle = handle
        self._waiting: deque[tuple[Iterator[LogEntry], int]] = deque()
        self._waiting_bytes = 0
        self._next: asyncio.Handle | None = None

    def add(self, entries: Iterator[LogEntry], size_bytes: int) -> None:
        """Have the entries of one message handled: some of them now, if no others wait."""
        self._waiting.append((entries, size_bytes))
        self._waiting_bytes += size_bytes
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.handle_all()
        elif self._next is None:
            self._go_on()

    def handle_all(self) -> None:
        """Handle all that waits, now."""
        while self._waiting:
            self._handle_some()

    def _go_on(self) -> None:
        self._next = None
        if self._waiting:
            self._handle_some()
        if self._waiting:
            self._next = asyncio.get_running_loop().call_soon(self._go_on)

    def _handle_some(self) -> None:
        entries, size_bytes = self._waiting[0]
        some = tuple(islice(entries, AT_ONCE))
        if len(some) < AT_ONCE:
            self._waiting.popleft()
            self._waiting_bytes -= size_bytes
        self._handle(some)
