"""The whole analysis of a sample store, from columns to an `Analysis`, and its zones of TTFT.

TTFT of vLLM is bimodal, so a mean says nothing; shares and quantiles do: how many requests were computed at
once, and how many had to queue.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.fleet.fleet_rules import WaitingRule
from extproc.fleet.zone import Zone
from extproc.learning.analysis.congestion import Congestion, congestion_of
from extproc.learning.analysis.correlation import Correlation, correlations
from extproc.learning.analysis.knee import Knee, knee_of
from extproc.learning.analysis.kv_usage import KvUsage, kv_usage_of
from extproc.learning.analysis.proposal import Setting, propose, to_yaml
from extproc.learning.dataset import Dropped, Observations, clean_observations
from extproc.learning.features import DEFAULT_ZONE, ZoneBounds


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


MAX_BACKENDS = 64
"""Beyond it only those with the most samples are looked at one by one: a store may hold any names."""

DEFAULT_LIMIT_S = WaitingRule().burst_s  # that of `guard.max_predicted_ttft_s`


@dataclass(frozen=True, slots=True)
class Analysis:
    """The findings from the samples.

    The first of `zones` is about all backends together, and that of `knees` where there are several.
    `rows` were read, `count` of them were usable, `listed` of the `backends` are looked at one by one.
    """

    rows: int
    count: int
    dropped: dict[Dropped, int]
    backends: int
    listed: int
    first_at_s: float | None
    last_at_s: float | None
    bounds: ZoneBounds
    limit_s: float
    zones: tuple[BackendZones, ...]
    correlations: tuple[Correlation, ...]
    knees: tuple[Knee, ...]
    congestion: tuple[Congestion, ...]
    kv_usage: KvUsage
    settings: tuple[Setting, ...]
    yaml: str


def analyze(
    columns: Mapping[str, npt.NDArray[np.generic]],
    rng: np.random.Generator,
    *,
    bounds: ZoneBounds = DEFAULT_ZONE,
    limit_s: float = DEFAULT_LIMIT_S,
) -> tuple[Analysis, Observations]:
    """Analyze columns of samples (see `clean_observations`); returns also the observations that are usable.

    `limit_s` is `guard.max_predicted_ttft_s`. The same columns and generator give the same numbers.
    """
    observations, dropped = clean_observations(columns)
    by_backend = _by_backend(observations)
    knees = tuple(knee_of(own, bounds, limit_s, name, rng) for name, own in by_backend.items())
    pooled = (knee_of(observations, bounds, limit_s, None, rng),) if len(by_backend) > 1 else ()
    settings = propose(observations, knees, limit_s)
    analysis = Analysis(
        rows=len(columns["at_s"]),
        count=len(observations),
        dropped=dropped,
        backends=len(observations.fleet),
        listed=len(by_backend),
        first_at_s=float(observations.at_s[0]) if len(observations) else None,
        last_at_s=float(observations.at_s[-1]) if len(observations) else None,
        bounds=bounds,
        limit_s=limit_s,
        zones=(
            zones_of(observations, bounds, None),
            *(zones_of(own, bounds, name) for name, own in by_backend.items()),
        ),
        correlations=correlations(observations, bounds),
        knees=(*pooled, *knees),
        congestion=tuple(congestion_of(own, bounds, name) for name, own in by_backend.items()),
        kv_usage=kv_usage_of(observations, rng),
        settings=settings,
        yaml=to_yaml(settings),
    )
    return analysis, observations


def _by_backend(observations: Observations) -> dict[str, Observations]:
    """Return the observations of each backend by its name; of too many backends, those with the most."""
    counts = np.bincount(observations.backend, minlength=len(observations.fleet))
    largest = np.sort(np.argsort(-counts, kind="stable")[:MAX_BACKENDS])
    return {
        observations.fleet[index]: observations.take(observations.backend == index)
        for index in largest.tolist()
    }
