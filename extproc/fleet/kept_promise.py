"""The share of the allowed wait that a backend is given, by how often requests waited longer than promised.

`guard.max_predicted_ttft_s` is a promise about what requests really wait, and the guard can only hold the
estimate to it. Where waits vary, or are longer than estimated, that breaks it too often. So the share follows
what became of the requests that had to wait for others to end: each that was late lowers it, each that was
not raises it, in such steps that it stays where LATE of them are. It is the stochastic approximation of a
quantile (Robbins and Monro, "A stochastic approximation method", 1951), and needs no model of the error.
"""

from math import exp

LATE = 0.02
"""Tried on twins of real servers: of all that are let in fewer than 5 % are then late, the first seconds of
an overload included."""

STEP = 0.15
"""Guessed: ten late ones take it down to a quarter, and it rises again while hundreds are in time."""

REST = 0.6
"""Tried on twins of real servers: where it begins, since as an overload begins estimates are too low."""

LEAST_SHARE = 0.25
"""Guessed: requests that are made to be late shall not close a server to all others."""

FORGETTING_S = 120.0
"""Guessed: after some minutes without such requests it is where it began."""


class KeptPromise:
    """One backend's `share`, from LEAST_SHARE to 1."""

    __slots__ = ("share",)

    def __init__(self) -> None:
        self.share = REST

    def waited(self, *, is_late: bool) -> None:
        """Take in that a request has waited, for longer than promised or not."""
        step = -STEP * (1.0 - LATE) if is_late else STEP * LATE
        self.share = max(LEAST_SHARE, min(1.0, self.share * exp(step)))

    def forget(self, elapsed_s: float) -> None:
        """Let the share go back to where it began as time passes."""
        self.share = REST + exp(-elapsed_s / FORGETTING_S) * (self.share - REST)
