"""The bounds of the zones of TTFT, which samples and models are about."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extproc.fleet.zone import ZoneRule

_Positive = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class ZoneBounds:
    """TTFT below `low_s` is the low zone, from `saturated_s` on the saturated one, the medium between."""

    low_s: _Positive
    saturated_s: _Positive

    def is_medium(self, ttft_s: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which of the TTFTs are of the medium zone, `(n,)` to `(n,)`."""
        return (ttft_s >= self.low_s) & (ttft_s < self.saturated_s)


DEFAULT_ZONE = ZoneBounds(low_s=ZoneRule().low_s, saturated_s=10.0)
"""Measured in the deployment that this project comes from."""
