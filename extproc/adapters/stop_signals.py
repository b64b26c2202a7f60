"""SIGINT, SIGTERM and SIGHUP as a condition that is asked about, so that nothing is interrupted half-way."""

import signal
from types import TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """A context manager for the main thread; `is_requested` is true after the first of the signals."""

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Self:
        # Under nohup a hang-up is ignored, and stays so.
        heeded = [
            number
            for number in _SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        self._previous = {number: signal.signal(number, self._request) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.is_requested = True
