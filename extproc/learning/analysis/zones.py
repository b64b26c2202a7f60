"""The zones of TTFT: how many requests were computed at once, and how many had to queue.

TTFT of vLLM is bimodal, so a mean says nothing; shares and quantiles do.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.fleet.zone import Zone
from extproc.learning.dataset import Observations
from extproc.learning.features import ZoneBounds


@dataclass(frozen=True, slots=True)
class TtftQuantiles:
    """Quantiles of TTFT in seconds."""

    p5_s: float
    p25_s: float
    p50_s: float
    p75_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class ZoneShare:
    """The samples of one zone; no quantiles where there are none."""

    zone: Zone
    count: int
    share: float
    ttft: TtftQuantiles | None


@dataclass(frozen=True, slots=True)
class BackendZones:
    """One backend's samples by zone; `backend` is None for all of them together."""

    backend: str | None
    count: int
    ttft: TtftQuantiles | None
    zones: tuple[ZoneShare, ...]


def zones_of(observations: Observations, bounds: ZoneBounds, backend: str | None) -> BackendZones:
    """Count the zones of these observations, which are said to be those of `backend`."""
    ttft_s = observations.ttft_s
    zones = tuple(
        ZoneShare(zone, int(mask.sum()), float(mask.mean()) if len(mask) else 0.0, _quantiles(ttft_s[mask]))
        for zone, mask in bounds.masks(ttft_s).items()
    )
    return BackendZones(backend, len(ttft_s), _quantiles(ttft_s), zones)


def _quantiles(ttft_s: npt.NDArray[np.float64]) -> TtftQuantiles | None:
    if not len(ttft_s):
        return None
    return TtftQuantiles(*np.quantile(ttft_s, [0.05, 0.25, 0.5, 0.75, 0.95, 0.99]).tolist())
