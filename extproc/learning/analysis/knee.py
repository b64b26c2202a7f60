"""The knee of TTFT over load: from which load on a request only waits, and how sure that is.

The knee is that of a broken stick (see `broken_stick`); its interval is the middle 95 % of a moving-block
bootstrap (Künsch, Annals of Statistics 1989), because neighbours in time met the same queue: resamples of
single requests gave intervals half as wide, which held the knee of simulated backends in 14 of 24 runs
instead of 20.

A knee is stated only if TTFT left the low zone, if it bends there rather than smoothly all along, if the
interval spans less than half of the loads seen and four times the knee, and if four of five resamples agree
within the knee's own size; otherwise the reason is.
"""

from dataclasses import dataclass

import numpy as np

from extproc.learning.analysis.broken_stick import (
    BrokenStick,
    Floats,
    Medians,
    fit_stick,
    load_bins,
    medians_of,
    smooth_loss,
)
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, ZoneBounds

MIN_SAMPLES = 100
"""Guessed: with fewer the interval is as wide as the range."""

MIN_LONG = 30
"""Guessed: this many waits out of the low zone make a queue."""

_MIN_STEEPER = 1.5
"""Guessed: beyond the knee each request more must cost this many times what it costs before it, in 95 % of
the resamples."""

_RESAMPLES = 200
_MOST_PER_BIN = 300
"""More samples of one load do not move its median."""

_LOAD = FEATURES.index("load")


@dataclass(frozen=True, slots=True)
class Knee:
    """One backend's knee, as load, with its 95 % interval; `backend` is None for all of them together.

    `load_at_limit` is where the expected TTFT passes the guard's limit, if any load seen came so far.
    Everything is None where there is no knee to state, and `unstated` says why.
    """

    backend: str | None
    count: int
    load: float | None = None
    low: float | None = None
    high: float | None = None
    ttft_at_knee_s: float | None = None
    slope_before_s: float | None = None
    slope_after_s: float | None = None
    load_at_limit: float | None = None
    unstated: str | None = None


def knee_of(
    observations: Observations,
    bounds: ZoneBounds,
    limit_s: float,
    backend: str | None,
    rng: np.random.Generator,
) -> Knee:
    """Return the knee of these observations, which are said to be those of `backend`."""
    if fault := _too_little(observations, bounds):
        return Knee(backend, len(observations), unstated=fault)
    thinned = _thinned(observations, rng)
    load = thinned.features[:, _LOAD]
    found = _tested_stick(load, thinned.ttft_s, bounds.low_s / 3, rng)
    if isinstance(found, str):
        return Knee(backend, len(observations), unstated=found)
    stick, low, high = found
    at_limit = stick.load_at(limit_s)
    return Knee(
        backend,
        len(observations),
        load=stick.knee,
        low=low,
        high=high,
        ttft_at_knee_s=stick.ttft_at_knee_s,
        slope_before_s=stick.slope_before_s,
        slope_after_s=stick.slope_after_s,
        load_at_limit=at_limit if at_limit <= load.max() else None,
    )


def _too_little(observations: Observations, bounds: ZoneBounds) -> str | None:
    """Return why there is nothing to look for a knee in, if that is so."""
    count, long_count = len(observations), int((observations.ttft_s >= bounds.low_s).sum())
    if count < MIN_SAMPLES:
        return f"too few samples: {count}, at least {MIN_SAMPLES} are needed"
    if long_count < MIN_LONG:
        return (
            f"never saturated: {long_count} requests with a TTFT of {bounds.low_s:g} s or more, "
            f"at least {MIN_LONG} are needed"
        )
    return None


def _thinned(observations: Observations, rng: np.random.Generator) -> Observations:
    """Return at most `_MOST_PER_BIN` samples of each load, drawn at random, in their old order."""
    bins = load_bins(observations.features[:, _LOAD])
    rows = [rng.permutation(np.flatnonzero(bins == each))[:_MOST_PER_BIN] for each in range(bins.max() + 1)]
    return observations.take(np.sort(np.concatenate(rows)))


def _tested_stick(
    load: Floats, ttft_s: Floats, scale_s: float, rng: np.random.Generator
) -> tuple[BrokenStick, float, float] | str:
    """Return the stick and the interval of its knee, or why there is no knee."""
    medians = medians_of(load, ttft_s)
    fitted = fit_stick(medians, scale_s)
    if fitted is None:
        return "too few different loads"
    stick, loss = fitted
    if fault := _fault_of_fit(medians, stick, loss, scale_s):
        return fault
    sticks = _resampled_sticks(load, ttft_s, scale_s, stick, rng)
    if np.mean([each.slope_after_s > _MIN_STEEPER * each.slope_before_s for each in sticks]) < 0.95:
        return "TTFT grows nearly as fast before the bend as after it"
    low, p10, p90, high = np.quantile([each.knee for each in sticks], [0.025, 0.1, 0.9, 0.975]).tolist()
    size = max(stick.knee, 4.0)
    if high - low > min(np.ptp(load) / 2, 4 * size) or p90 - p10 > size:
        return f"too uncertain: between a load of {low:.0f} and {high:.0f}"
    return stick, low, high


def _fault_of_fit(medians: Medians, stick: BrokenStick, loss: float, scale_s: float) -> str | None:
    """Return why the best stick is no knee, if it is not."""
    if not np.isfinite(loss):
        return "TTFT does not grow with load"
    if not medians.load[1] < stick.knee < medians.load[-3]:
        return f"no bend inside the loads seen, {medians.load[0]:g} to {medians.load[-1]:g}"
    if smooth_loss(medians, scale_s) < loss:
        return "TTFT grows smoothly with load, without a knee"
    return None


def _resampled_sticks(
    load: Floats, ttft_s: Floats, scale_s: float, stick: BrokenStick, rng: np.random.Generator
) -> list[BrokenStick]:
    """Return the sticks of resamples, made of blocks as long as the cube root of the number of samples."""
    count = len(load)
    size = round(count ** (1 / 3))
    sticks = []
    for _ in range(_RESAMPLES):
        starts = rng.integers(0, count - size + 1, -(-count // size))
        rows = (starts[:, None] + np.arange(size)).ravel()[:count]
        fitted = fit_stick(medians_of(load[rows], ttft_s[rows]), scale_s, stick)
        if fitted is not None and np.isfinite(fitted[1]):
            sticks.append(fitted[0])
    return sticks
