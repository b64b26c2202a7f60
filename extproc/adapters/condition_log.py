"""Logs a condition when it changes, or at most every 30 s, so that a lasting fault does not fill the log."""

import logging
from collections.abc import Container
from dataclasses import dataclass, field

REPEAT_S = 30.0
MAX_ERROR = 300


@dataclass(slots=True, eq=False)
class ConditionLog:
    """Follows one condition, separately for each set of fields, such as the name of a backend.

    A line has one of the two events, the fields, and the error. Without the second event the end of a fault
    is not logged. A fault that lasts is logged again after `_repeat_s`, with inf once.
    """

    _logger: logging.Logger
    _failed_event: str
    _holds_event: str = ""
    _repeat_s: float = REPEAT_S
    _logged_at_s: dict[tuple[str, ...], float] = field(default_factory=dict)

    def failed(self, error: str, now_s: float, **fields: str) -> None:
        """Log that the condition does not hold; `error` may be a different one each time."""
        subject = tuple(fields.values())
        logged_at_s = self._logged_at_s.get(subject)
        if logged_at_s is None or now_s - logged_at_s >= self._repeat_s:
            self._logged_at_s[subject] = now_s
            shown = " ".join(error.split())[:MAX_ERROR]  # it may hold what a peer has sent
            self._logger.warning("%s error=%s", _line(self._failed_event, fields), shown)

    def holds(self, **fields: str) -> None:
        """Log that the condition holds, if it did not before."""
        if self._logged_at_s.pop(tuple(fields.values()), None) is not None and self._holds_event:
            self._logger.info("%s", _line(self._holds_event, fields))

    def keep_only(self, names: Container[str]) -> None:
        """Forget the conditions whose fields are not all in `names`: those of backends that have left."""
        for subject in [subject for subject in self._logged_at_s if not all(one in names for one in subject)]:
            del self._logged_at_s[subject]


def _line(event: str, fields: dict[str, str]) -> str:
    return " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
