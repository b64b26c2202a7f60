"""Work that parts of responses do not wait behind: each piece of it has a turn of the event loop of its own.

To place a request takes some ten times as long as to hand a part back, and so does learning from one that has
ended. So a part waits for one such piece at most: after each, the loop reads what has come meanwhile, and
answers it.
"""

import asyncio
from collections import deque
from collections.abc import Callable

MOST_WAITING = 256
"""Guessed: pieces of each kind that may wait, some 0.1 s of work. Beyond, the oldest is done at once."""

MOST_PUT_OFF = 4
"""Guessed: turns that a piece is put off for parts that have been read, 0.1 ms each."""

Work = Callable[[], None]


class OwnTurns:
    """The work of one server: `urgent` pieces in the order of their coming, then the others.

    While the server `is_behind` with messages that it has read, it answers them first: what it answers in a
    turn is written at the end of the turn.
    """

    def __init__(self, is_behind: Callable[[], bool]) -> None:
        self._is_behind = is_behind
        self._put_off = 0
        self._urgent: deque[Work] = deque()
        self._other: deque[Work] = deque()
        self._is_due = False

    def add(self, work: Work, *, urgent: bool) -> None:
        """Have a piece of work done in a turn of its own."""
        waiting = self._urgent if urgent else self._other
        waiting.append(work)
        if len(waiting) > MOST_WAITING:
            waiting.popleft()()
        if not self._is_due:
            self._go_on()

    def finish(self) -> None:
        """Do all that waits, now."""
        while waiting := self._urgent or self._other:
            waiting.popleft()()

    def _go_on(self) -> None:
        self._is_due = bool(self._urgent or self._other)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        if self._put_off < MOST_PUT_OFF and self._is_behind():
            self._put_off += 1
            self._go_on()
            return
        self._put_off = 0
        waiting = self._urgent or self._other
        work = waiting.popleft() if waiting else None
        self._go_on()  # whatever becomes of this piece
        if work is not None:
            work()
