"""The bounds of the zones of TTFT, which samples and models are about."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extproc.fleet.zone import Zone, ZoneRule

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
