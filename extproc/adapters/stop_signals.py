"""Signals that ask a process to stop, as a condition or an event, so that nothing is interrupted half-way."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_event() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set during the block; for the main thread, in a running loop."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP without an event loop: `is_requested` is true after the first of them.

    A context manager for the main thread.
    """

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Self:
        # Under nohup a hang-up is ignored, and stays so.
        handled = [
            number
            for number in _SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        self._previous = {number: signal.signal(number, self._request) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.is_requested = True
