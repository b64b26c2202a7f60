"""Logs a condition when it changes, or at most every 30 s, so that a lasting fault does not fill the log."""

import logging

REPEAT_S = 30.0


class ConditionLog:
    """The last state of each named condition. Names must be bounded, as those of backends are."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[str, tuple[str, float]] = {}

    def failed(self, name: str, event: str, error: str, now_s: float) -> None:
        """The condition does not hold, for the reason `error`."""
        last = self._last.get(name)
        if last is None or last[0] != error or now_s - last[1] >= REPEAT_S:
            self._last[name] = (error, now_s)
            self._logger.warning("%s name=%s error=%s", event, name, error)

    def holds(self, name: str, event: str) -> None:
        """The condition holds; worth a line only where it did not before."""
        if self._last.pop(name, None) is not None:
            self._logger.info("%s name=%s", event, name)
