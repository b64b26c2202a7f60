"""Logs a condition when it changes, or at most every 30 s, so that a lasting fault does not fill the log."""

import logging
from collections.abc import Container

REPEAT_S = 30.0
MAX_ERROR = 300


class ConditionLog:
    """When each named condition was last said not to hold."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said_at_s: dict[str, float] = {}

    def failed(self, name: str, event: str, error: str, now_s: float) -> None:
        """The condition does not hold, for the reason `error`, which may be another one each time."""
        said_at_s = self._said_at_s.get(name)
        if said_at_s is None or now_s - said_at_s >= REPEAT_S:
            self._said_at_s[name] = now_s
            shown = " ".join(error.split())[:MAX_ERROR]  # it may hold what a peer has sent
            self._logger.warning("%s name=%s error=%s", event, name, shown)

    def holds(self, name: str, event: str) -> None:
        """The condition holds; worth a line only where it did not before."""
        if self._said_at_s.pop(name, None) is not None:
            self._logger.info("%s name=%s", event, name)

    def keep_only(self, names: Container[str]) -> None:
        """Forget all other conditions: those whose backends have left."""
        for name in [name for name in self._said_at_s if name not in names]:
            del self._said_at_s[name]
