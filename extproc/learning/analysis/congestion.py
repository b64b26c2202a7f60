"""Where requests wait: in the engine's queue, or before the engine, where none of its gauges counts them.

Requests out of the low zone had to wait. If nothing was waiting in the engine when they came, they waited
somewhere else. A number of running requests that stays at its top says that the engine lets no more in.
Requests in flight that are neither running nor waiting in the engine are queued in front of it.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from extproc.fleet.zone import Zone
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, ZoneBounds

MIN_SAMPLES = 30
"""Guessed, as for a correlation."""

_NEARLY_ALL, _NEARLY_NONE = 0.8, 0.2
_NEAR_LIMIT = 0.05
_PINNED_SHARE = 0.5


class WaitLocation(StrEnum):
    """Where requests wait."""

    BEFORE_ENGINE = "before the engine"
    IN_ENGINE = "in the engine"
    BOTH = "in both places"
    NOT_SATURATED = "not saturated"


@dataclass(frozen=True, slots=True)
class Congestion:
    """One backend's requests out of the low zone, and where those of the saturated zone had to wait.

    `nothing_waiting_share` are those at whose arrival the engine's queue was empty, in the medium and in the
    saturated zone; `running_top` is the usual number of running requests in the saturated zone, and
    `at_top_share` are those that met it, give or take 5 % or one. `queue_seen_share` is how much of what was
    in flight but not running `num_waiting` showed. Where there are too few samples, there is None.
    """

    backend: str
    count: int
    place: WaitLocation
    nothing_waiting_share_medium: float | None = None
    nothing_waiting_share_saturated: float | None = None
    running_top: float | None = None
    at_top_share: float | None = None
    is_running_pinned: bool | None = None
    queue_seen_share: float | None = None


def congestion_of(observations: Observations, bounds: ZoneBounds, backend: str) -> Congestion:
    """Find out where requests wait on one backend, from its observations."""
    column = dict(zip(FEATURES, observations.features.T, strict=True))
    masks = bounds.masks(observations.ttft_s)
    count = int((observations.ttft_s >= bounds.low_s).sum())
    empty_medium, empty = (
        _empty_share(column["num_waiting"][masks[zone]]) for zone in (Zone.MEDIUM, Zone.SATURATED)
    )
    if empty is None:
        return Congestion(backend, count, WaitLocation.NOT_SATURATED, empty_medium)
    running, load, waiting = (
        column[name][masks[Zone.SATURATED]] for name in ("num_running", "load", "num_waiting")
    )
    top = float(np.median(running))
    at_top = float((np.abs(running - top) <= max(_NEAR_LIMIT * top, 1.0)).mean())
    queued = float(np.maximum(load - running, 0).sum())
    return Congestion(
        backend,
        count,
        _location(empty),
        nothing_waiting_share_medium=empty_medium,
        nothing_waiting_share_saturated=empty,
        running_top=top,
        at_top_share=at_top,
        is_running_pinned=at_top >= _PINNED_SHARE,
        queue_seen_share=min(float(waiting.sum()) / queued, 1.0) if queued else None,
    )


def _empty_share(waiting: npt.NDArray[np.float64]) -> float | None:
    return float((waiting == 0).mean()) if len(waiting) >= MIN_SAMPLES else None


def _location(empty_share: float) -> WaitLocation:
    if empty_share >= _NEARLY_ALL:
        return WaitLocation.BEFORE_ENGINE
    return WaitLocation.IN_ENGINE if empty_share <= _NEARLY_NONE else WaitLocation.BOTH
