"""The bounds of the zones of TTFT, which samples and models are about."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

_Positive = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class ZoneBounds:
    """TTFT below `low_s` is the low zone, from `saturated_s` on the saturated one, the medium between."""

    low_s: _Positive
    saturated_s: _Positive


DEFAULT_ZONE = ZoneBounds(low_s=1.0, saturated_s=10.0)
"""Measured in the deployment that this project comes from."""
