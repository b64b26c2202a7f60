"""The broken stick: TTFT over load as two straight lines that meet at the knee.

`TTFT = a + b * load + s * max(0, load - knee)`, after Hinkley, "Inference in two-phase regression" (JASA
1971) and Muggeo, "Estimating regression models with unknown break-points" (Statistics in Medicine 2003). The
theory behind it is Little's law: up to the knee a request shares the engine, beyond it each one more waits
for one more to leave.

The knee is found on a grid, so it needs no first guess. Fitted are medians of TTFT, one for each small range
of load, by least absolute deviations: neither a flood of idle samples nor outliers decide. Deviations count
in seconds below `scale_s` and relatively above it, because TTFT scatters in proportion to itself.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BINS = 100
_FULL_BIN = 10
"""So many samples make a bin count fully."""

_COARSE, _FINE = 32, 17
_ROUNDS = 8
_SMOOTH = 0.05
"""Deviations below it, on the scale of logarithms, count squared: the loss has to be smooth at 0."""


@dataclass(frozen=True, slots=True)
class BrokenStick:
    """Expected TTFT over load; `slope_before_s` and `slope_after_s` are seconds for each request more."""

    knee: float
    intercept_s: float
    slope_before_s: float
    slope_after_s: float

    @property
    def ttft_at_knee_s(self) -> float:
        """The expected TTFT where the lines meet."""
        return self.intercept_s + self.slope_before_s * self.knee

    def load_at(self, ttft_s: float) -> float:
        """The load at which the expected TTFT passes `ttft_s`."""
        if ttft_s >= self.ttft_at_knee_s:
            return self.knee + (ttft_s - self.ttft_at_knee_s) / self.slope_after_s
        if ttft_s <= self.intercept_s:
            return 0.0
        return (ttft_s - self.intercept_s) / self.slope_before_s


@dataclass(frozen=True, slots=True, eq=False)
class Medians:
    """Median load and TTFT in ranges of load, ascending, `(m,)` each, and what each counts."""

    load: Floats
    ttft_s: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.load)


def load_bins(load: Floats) -> npt.NDArray[np.intp]:
    """Which of some hundred ranges each load is in; they grow with load, whole numbers first."""
    if not len(load):
        return np.zeros(0, np.intp)
    top = np.log1p(load.max())
    return np.unique(np.round(np.log1p(load) / max(top, 1e-9) * _BINS), return_inverse=True)[1].astype(
        np.intp
    )


def medians_of(load: Floats, ttft_s: Floats, bins: npt.NDArray[np.intp]) -> Medians:
    """The medians of each bin that has samples; `bins` are `load_bins`."""
    counts = np.bincount(bins)
    present = counts > 0
    middle = (np.cumsum(counts) - counts + counts // 2)[present]
    by_load, by_ttft = np.lexsort((load, bins)), np.lexsort((ttft_s, bins))
    weight = np.minimum(counts[present] / _FULL_BIN, 1.0)
    return Medians(load[by_load][middle], ttft_s[by_ttft][middle], weight)


def fit_stick(medians: Medians, scale_s: float) -> tuple[BrokenStick, float] | None:
    """The stick that fits best, and its loss; None where there is nothing on either side to fit it to."""
    if len(medians) < 6:
        return None
    inner = np.unique(medians.load[1:-2])
    knees = np.quantile(inner, np.linspace(0, 1, _COARSE)) if len(inner) > _COARSE else inner
    best, _ = _best(medians, knees, scale_s)
    place = int(np.searchsorted(knees, best.knee))
    low, high = knees[max(place - 1, 0)], knees[min(place + 1, len(knees) - 1)]
    return _best(medians, np.linspace(low, high, _FINE), scale_s)


def smooth_loss(medians: Medians, scale_s: float) -> float:
    """The loss of the best parabola: where it is no larger, there is a bend and not a knee."""
    load = medians.load / medians.load[-1]
    design = np.stack([np.ones_like(load), load, load**2], axis=-1)[None]
    return float(_least_deviations(design, medians, scale_s)[1][0])


def _best(medians: Medians, knees: Floats, scale_s: float) -> tuple[BrokenStick, float]:
    """The best stick with its knee among these. A falling first half is fitted again as a level one."""
    load = np.broadcast_to(medians.load, (len(knees), len(medians)))
    level, beyond = np.ones_like(load), np.maximum(load - knees[:, None], 0)
    lines, loss = _least_deviations(np.stack([level, load, beyond], axis=-1), medians, scale_s)
    is_falling = lines[:, 1] < 0
    if is_falling.any():
        design = np.stack([level, beyond], axis=-1)[is_falling]
        lines[is_falling, 1] = 0
        flat, loss[is_falling] = _least_deviations(design, medians, scale_s)
        lines[is_falling, 0], lines[is_falling, 2] = flat.T
    loss = np.where(lines[:, 2] > 0, loss, np.inf)
    best = int(np.argmin(loss))
    intercept_s, before_s, more_s = lines[best].tolist()
    return BrokenStick(float(knees[best]), intercept_s, before_s, before_s + more_s), float(loss[best])


def _least_deviations(design: Floats, medians: Medians, scale_s: float) -> tuple[Floats, Floats]:
    """Coefficients `(g, p)` and losses `(g,)` for designs `(g, m, p)`, by reweighted least squares."""
    target = np.log(scale_s + medians.ttft_s)
    transposed = np.ascontiguousarray(design.swapaxes(1, 2))
    ridge = 1e-9 * np.eye(design.shape[-1])
    weight = np.broadcast_to(medians.weight / (scale_s + medians.ttft_s) ** 2, design.shape[:2])
    for _ in range(_ROUNDS):
        weighted = transposed * weight[:, None, :]
        gram = weighted @ design
        trace = np.trace(gram, axis1=1, axis2=2)[:, None, None]
        coefficients = np.linalg.solve(gram + trace * ridge, (weighted @ medians.ttft_s)[..., None])
        fitted_s = np.maximum((design @ coefficients)[..., 0], 0)
        deviation = np.abs(target - np.log(scale_s + fitted_s))
        off_s = np.abs(medians.ttft_s - fitted_s)
        # The slope of the chord between the two on the logarithm turns seconds into its scale exactly.
        slope = np.where(off_s > 1e-9, deviation / np.maximum(off_s, 1e-9), 1 / (scale_s + fitted_s))
        weight = medians.weight * slope**2 / np.maximum(deviation, _SMOOTH)
    return coefficients[..., 0], (medians.weight * _huber(deviation)).sum(axis=-1)


def _huber(deviation: Floats) -> Floats:
    return np.where(deviation < _SMOOTH, deviation**2 / (2 * _SMOOTH), deviation - _SMOOTH / 2)
