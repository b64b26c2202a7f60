"""The features of layer 2, their order and their direction; and the zones of TTFT that models are about.

`FEATURES` is the one list that serving, recording and training share; a model file carries it, and a file
with another list is refused.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extproc.fleet.zone import Zone, ZoneRule

FEATURES: tuple[str, ...] = ("num_running", "load", "num_waiting", "kv_cache_fraction", "input_tokens")
"""Per candidate at the decision: the estimate of running requests for now, own + foreign load, the scraped
waiting requests, the scraped share of KV cache in use, and the request's input length in tokens."""

MONOTONE: tuple[int, ...] = (1, 1, 0, 0, 1)
"""+1: a larger value never predicts a shorter TTFT. Waiting and KV usage lag too much to promise that."""

RANGE_SLACK: tuple[float, ...] = (1.0, 1.0, 8.0, 0.15, 16.0)
"""How far beyond its trained range a feature may at least lie, in its own unit, for the model to be asked.
Tight for what carries the prediction. Wide for waiting and KV usage: they lag, and a model that never saw a
waiting request still knows the load. All guessed."""

LARGEST: tuple[float, ...] = (1e5, 1e5, 1e5, 1.0, 1e8)
"""What no feature exceeds on a real server; a larger or negative value in a sample is garbage."""

_Positive = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class ZoneBounds:
    """TTFT below `low_s` is the low zone, from `saturated_s` on the saturated one, the medium between."""

    low_s: _Positive
    saturated_s: _Positive

    def is_medium(self, ttft_s: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which of the TTFTs are of the medium zone, `(n,)` to `(n,)`."""
        return (ttft_s >= self.low_s) & (ttft_s < self.saturated_s)

    def masks(self, ttft_s: npt.NDArray[np.float64]) -> dict[Zone, npt.NDArray[np.bool_]]:
        """Return which of the TTFTs are of each zone, `(n,)` to `(n,)`; every one is in exactly one."""
        is_low, is_saturated = ttft_s < self.low_s, ttft_s >= self.saturated_s
        return {Zone.LOW: is_low, Zone.MEDIUM: ~is_low & ~is_saturated, Zone.SATURATED: is_saturated}


DEFAULT_ZONE = ZoneBounds(low_s=ZoneRule().low_s, saturated_s=10.0)
"""Measured in the deployment that this project comes from."""
