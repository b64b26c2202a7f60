"""Where requests wait: in the engine's queue, or before the engine, where none of its gauges counts them.

Looked at are the requests out of the low zone: if nothing was waiting in the engine when they came, what they
waited for was not there. A number of running requests that stays at its top says that the engine lets no more
in. What of the requests in flight neither ran nor waited in the engine was before it.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from extproc.fleet.zone import Zone
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import ZoneBounds

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
    nothing_waiting_share_medium: float | None
    nothing_waiting_share_saturated: float | None
    running_top: float | None
    at_top_share: float | None
    is_running_pinned: bool | None
    queue_seen_share: float | None


def congestion_of(observations: Observations, bounds: ZoneBounds, backend: str) -> Congestion:
    """Where requests wait on one backend, of which these are the observations."""
    column = dict(zip(FEATURES, observations.features.T, strict=True))
    masks = bounds.masks(observations.ttft_s)
    saturated = masks[Zone.SATURATED]
    count = int((observations.ttft_s >= bounds.low_s).sum())
    empty_medium = _empty_share(column["num_waiting"][masks[Zone.MEDIUM]])
    empty = _empty_share(column["num_waiting"][saturated])
    if empty is None:
        return Congestion(
            backend, count, WaitLocation.NOT_SATURATED, empty_medium, None, None, None, None, None
        )
    running, load, waiting = (column[name][saturated] for name in ("num_running", "load", "num_waiting"))
    top = float(np.median(running))
    at_top = float((np.abs(running - top) <= max(_NEAR_LIMIT * top, 1.0)).mean())
    queued = float(np.maximum(load - running, 0).sum())
    return Congestion(
        backend,
        count,
        _place(empty),
        empty_medium,
        empty,
        top,
        at_top,
        at_top >= _PINNED_SHARE,
        min(float(waiting.sum()) / queued, 1.0) if queued else None,
    )


def _empty_share(waiting: npt.NDArray[np.float64]) -> float | None:
    return float((waiting == 0).mean()) if len(waiting) >= MIN_SAMPLES else None


def _place(empty_share: float) -> WaitLocation:
    if empty_share >= _NEARLY_ALL:
        return WaitLocation.BEFORE_ENGINE
    return WaitLocation.IN_ENGINE if empty_share <= _NEARLY_NONE else WaitLocation.BOTH
