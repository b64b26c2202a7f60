"""The broken stick: TTFT over load as two straight lines that meet at the knee.

`TTFT = a + b * load + s * max(0, load - knee)`, after Hinkley, "Inference in two-phase regression" (JASA
1971) and Muggeo, "Estimating regression models with unknown break-points" (Statistics in Medicine 2003). The
theory behind it is Little's law: up to the knee a request shares the engine, beyond it each one more waits
for one more to leave.

The stick is fitted to medians of TTFT, one for each small range of load, by least absolute deviations (soft
L1): neither a flood of idle samples nor outliers decide. Deviations count in seconds below `scale_s` and
relatively above it, because TTFT scatters in proportion to itself.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Floats = npt.NDArray[np.float64]

_BINS = 100
_FULL_BIN = 10
"""A bin with this many samples counts fully."""

_FIRST_GUESSES = (0.2, 0.4, 0.6, 0.8)
"""Quantiles of load; the loss may have a minimum on either side of the knee that is best."""

_DIGITS = 6
"""Less than a microsecond for each request more is nothing."""

_SMOOTH = 0.05
"""Deviations below it, on the scale of logarithms, count squared."""


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
        """Return the load at which the expected TTFT passes `ttft_s`."""
        if ttft_s >= self.ttft_at_knee_s:
            return self.knee + (ttft_s - self.ttft_at_knee_s) / self.slope_after_s
        if ttft_s <= self.intercept_s:
            return 0.0
        return (ttft_s - self.intercept_s) / self.slope_before_s


@dataclass(frozen=True, slots=True, eq=False)
class Medians:
    """Median load and TTFT in ranges of load, ascending, and the weight of each range, `(m,)` each."""

    load: Floats
    ttft_s: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.load)


def load_bins(load: Floats) -> npt.NDArray[np.intp]:
    """Sort loads into some hundred ranges, numbered from 0; they grow with load, whole numbers first."""
    top = max(np.log1p(load.max(initial=0)), 1e-9)
    return np.unique(np.round(np.log1p(load) / top * _BINS), return_inverse=True)[1]


def medians_of(load: Floats, ttft_s: Floats) -> Medians:
    """Return the medians in each of the `load_bins`."""
    bins = load_bins(load)
    counts = np.bincount(bins)
    middle = np.cumsum(counts) - counts + counts // 2
    by_load, by_ttft = np.lexsort((load, bins)), np.lexsort((ttft_s, bins))
    return Medians(load[by_load][middle], ttft_s[by_ttft][middle], np.minimum(counts / _FULL_BIN, 1.0))


def fit_stick(
    medians: Medians, scale_s: float, near: BrokenStick | None = None
) -> tuple[BrokenStick, float] | None:
    """Return the stick that fits best, and its loss, which is infinite where TTFT does not grow with load.

    Nothing of the stick is negative. The search begins at `near`, if it is given. Returns None for fewer than
    six medians.
    """
    if len(medians) < 6:
        return None
    load, slope_s = medians.load, np.ptp(medians.ttft_s) / medians.load[-1]
    starts = [(knee, medians.ttft_s[0], slope_s / 10, slope_s) for knee in np.quantile(load, _FIRST_GUESSES)]
    if near is not None:
        starts = [astuple(near)]
    bounds = (load[0], 0, 0, 0), (load[-1], np.inf, np.inf, np.inf)

    def stick_s(parameters: Floats) -> Floats:
        knee, intercept_s, before_s, more_s = parameters
        ttft_s: Floats = intercept_s + before_s * load + more_s * np.maximum(load - knee, 0)
        return ttft_s

    fits = [_fit(stick_s, np.clip(start, *bounds), bounds, medians, scale_s) for start in starts]
    (knee, intercept_s, before_s, more_s), loss = min(fits, key=itemgetter(1))
    stick = BrokenStick(knee, intercept_s, before_s, before_s + more_s)
    return stick, loss if stick.slope_after_s > 0 else np.inf


def smooth_loss(medians: Medians, scale_s: float) -> float:
    """Return the loss of the best parabola: where it is smaller, there is a bend and not a knee."""
    start = np.polyfit(medians.load, medians.ttft_s, 2)
    anything = (-np.inf, np.inf)
    return _fit(lambda parabola: np.polyval(parabola, medians.load), start, anything, medians, scale_s)[1]


def _fit(
    curve_s: Callable[[Floats], npt.NDArray[np.floating]],
    start: npt.ArrayLike,
    bounds: tuple[object, object],
    medians: Medians,
    scale_s: float,
) -> tuple[list[float], float]:
    """Return the parameters that fit best, and their loss; `curve_s` gives TTFT at the medians' loads."""

    def deviations(parameters: Floats) -> Floats:
        expected_s = np.maximum(curve_s(parameters), 0)
        off: Floats = np.log(scale_s + expected_s) - np.log(scale_s + medians.ttft_s)
        return np.sqrt(medians.weight) * off

    robust = {"loss": "soft_l1", "f_scale": _SMOOTH, "x_scale": "jac"}
    found = least_squares(deviations, start, bounds=bounds, ftol=1e-4, xtol=1e-4, **robust)
    return found.x.round(_DIGITS).tolist(), round(float(found.cost), _DIGITS)
