"""The features of layer 2 and their order; and the zones of TTFT that models are about.

`FEATURES` is the one list that serving, recording and training share; a model file carries it, and a file
with another list is refused.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Annotated, cast

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extproc.fleet.wait_terms import ExpectedWait
from extproc.fleet.zone import Zone, ZoneRule

GAUGES: tuple[str, ...] = ("num_running", "load", "num_waiting", "kv_cache_fraction", "input_tokens")
"""Per candidate at the decision: the estimate of running requests for now, own + foreign load, the scraped
waiting requests, the scraped share of KV cache in use, and the request's input length in tokens."""

TERMS: tuple[str, ...] = ExpectedWait._fields
"""The terms of the estimate, in seconds."""

FEATURES: tuple[str, ...] = (*GAUGES, *TERMS)

ROW = Struct(f"{len(FEATURES)}d")
"""Packs the features of a candidate, as a model in use is given them: faster than a list of numbers."""

LARGEST: tuple[float, ...] = (1e5, 1e5, 1e5, 1.0, 1e8, *(1e6 for _ in TERMS))
"""A bound that no feature exceeds on a real server; a larger or negative value in a sample is garbage."""

_Positive = Annotated[float, Meta(gt=0)]


def estimates_s(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the plain estimate of TTFT of each row, `(n, n_features)` to `(n,)`; 0 where there was none."""
    terms = features[:, len(GAUGES) :].T
    return cast("npt.NDArray[np.float64]", ExpectedWait(*terms).ttft_s)  # it sums columns as it sums numbers


@dataclass(frozen=True, slots=True)
class ZoneBounds:
    """Seconds below `low_s` are the low zone, from `saturated_s` on the saturated one, the medium between."""

    low_s: _Positive
    saturated_s: _Positive

    def is_medium(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which of some times are of the medium zone, `(n,)` to `(n,)`."""
        return (seconds >= self.low_s) & (seconds < self.saturated_s)

    def masks(self, ttft_s: npt.NDArray[np.float64]) -> dict[Zone, npt.NDArray[np.bool_]]:
        """Return which of the TTFTs are of each zone, `(n,)` to `(n,)`; every one is in exactly one."""
        is_low, is_saturated = ttft_s < self.low_s, ttft_s >= self.saturated_s
        return {Zone.LOW: is_low, Zone.MEDIUM: ~is_low & ~is_saturated, Zone.SATURATED: is_saturated}


DEFAULT_ZONE = ZoneBounds(low_s=ZoneRule().low_s, saturated_s=10.0)
"""Measured in the deployment that this project comes from."""
