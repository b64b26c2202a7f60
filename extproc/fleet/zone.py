"""The three zones of load, and the load from which a backend is in the medium one.

TTFT tells the zones apart (low < 1 s, medium 1 to 10 s, saturated beyond), but it is known only when a
request has ended. So each backend carries a boundary on its *load*, learned from outcomes: a slow answer
at a load below the boundary pulls it down, a fast one above pushes it up, a fraction of the distance each
time. This is stochastic approximation of a threshold (Robbins and Monro, 1951); with it one set of bounds
serves unequal machines.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge

from extproc.fleet.bounds import Seconds

LEARNING_RATE = 0.1
"""Guessed: a boundary that is wrong by half settles within some twenty outcomes."""


class Zone(StrEnum):
    """Where a backend is on its way from idle to queue-bound."""

    LOW = "low"
    MEDIUM = "medium"
    SATURATED = "saturated"


@dataclass(frozen=True, slots=True)
class ZoneRule:
    """Where the low zone ends and the medium one starts, as TTFT and as load."""

    low_s: Seconds = 1.0  # measured in the deployment that this project comes from
    medium_load: Annotated[float, Ge(1)] = 16.0  # guessed; each backend's own is learned from outcomes


def learned_boundary(medium_load: float, load: float, ttft_s: float, low_s: float) -> float:
    """The boundary after a request that met `load` and took `ttft_s` to its first token; at least 1."""
    is_slow = ttft_s >= low_s
    if is_slow == (load >= medium_load):
        return medium_load
    target = load if is_slow else load + 1
    return max(1.0, medium_load + LEARNING_RATE * (target - medium_load))
