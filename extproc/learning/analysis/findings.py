"""The whole analysis of a sample store, from columns to an `Analysis`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.fleet.fleet_rules import WaitingRule
from extproc.learning.analysis.congestion import Congestion, congestion_of
from extproc.learning.analysis.correlation import Correlation, correlations
from extproc.learning.analysis.knee import Knee, knee_of
from extproc.learning.analysis.kv_usage import KvUsage, kv_usage_of
from extproc.learning.analysis.proposal import Setting, propose, to_yaml
from extproc.learning.analysis.zones import BackendZones, zones_of
from extproc.learning.dataset import Dropped, Observations, clean_observations
from extproc.learning.features import DEFAULT_ZONE, ZoneBounds

MAX_BACKENDS = 64
"""Beyond it only those with the most samples are looked at one by one: a store may hold any names."""

DEFAULT_LIMIT_S = WaitingRule().burst_s  # that of `guard.max_predicted_ttft_s`


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the samples say.

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
    settings = propose(observations, knees, bounds.low_s, limit_s)
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
