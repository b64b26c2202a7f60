"""The three zones of a backend, by the estimate of the time to the first token that a request would have
there.

Below a second differences are small; from there on TTFT follows the load, and a trained model may earn its
keep; a saturated backend takes no more.
"""

from dataclasses import dataclass
from enum import StrEnum

from extproc.fleet.bounds import Seconds


class Zone(StrEnum):
    """Where a backend is on its way from idle to queue-bound."""

    LOW = "low"
    MEDIUM = "medium"
    SATURATED = "saturated"


@dataclass(frozen=True, slots=True)
class ZoneRule:
    """The estimate at which the low zone ends and the medium one starts."""

    low_s: Seconds = 1.0  # measured in the deployment that this project comes from
