"""A request's own limit of its wait: a header by which a client says when its first token is due.

The header is that of the llm-d router (its name of today, and the one before), in milliseconds. It limits
how long the request may wait before a server computes it, at the router and in the server's queue together.
The time that its own prompt takes is not part of the wait: a long prompt is not refused for being long.

A client that lies harms itself. The guard lets no request in for its limit that it would keep out without, so
no server's queue gets longer. In mode `queue` the limit is part of the order within one tenant, and the
request that is first by it is also the first whose time is over. A value that makes no sense counts as none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Final

from annotated_types import Ge, Le

SLO_HEADERS: Final = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
"""Borrowed from llm-d; where both make sense the first one counts, as there."""

MAX_DIGITS: Final = 24
"""Guessed: a longer number is none."""

LimitSeconds = Annotated[float, Ge(0.001), Le(3600)]


@dataclass(frozen=True, slots=True)
class SloRule:
    """Whether clients may have limits of their own; smaller and larger ones than these count as these."""

    is_enabled: bool = True
    min_ttft_s: LimitSeconds = 0.1  # guessed: gauges are late by several times this (measured, 0.3 to 0.5 s)
    max_ttft_s: LimitSeconds = 60.0  # guessed; the wait at the router is bounded by max_wait_s besides

    def __post_init__(self) -> None:
        if self.min_ttft_s > self.max_ttft_s:
            raise ValueError("min_ttft_s must not be larger than max_ttft_s")

    def limit_s(self, headers: Mapping[str, str]) -> float | None:
        """Return a client's own limit in seconds, None where it gives none that makes sense."""
        if not self.is_enabled:
            return None
        for name in SLO_HEADERS:
            text = headers.get(name)
            milliseconds = None if text is None else _number(text)
            if milliseconds is not None:
                return max(self.min_ttft_s, min(self.max_ttft_s, milliseconds / 1000.0))
        return None


def _number(text: str) -> float | None:
    """Return a finite positive number; Python would also take digits of other scripts, and underscores."""
    if len(text) > MAX_DIGITS or not text.isascii() or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and number > 0.0 else None
