"""How the model does on each backend: its correction, and whether it is still to be believed.

Every outcome of a request for which the model was asked comes back with what the model had said. The mean
of the log residuals, slowly forgetting, is the backend's correction: one model serves unequal machines. It
starts at what the model file says of that backend, or at zero.
The running mean of the absolute log error *after* correction is held against the error that the model file
promises; where it is well above, layer 2 stands down for that backend until the error has come down again
(the model goes on being asked, not heeded) or another model arrives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import Annotated

from annotated_types import Ge

from extproc.bounds import Count

SETTLING_OUTCOMES = 1
"""Guessed: the weight of a start at zero, in outcomes: a machine of half the speed is known to within a tenth
after ten."""
KNOWN_OUTCOMES = 5
"""Guessed: the weight of a start that the model file gives, which was measured, but some time ago."""
SETTLED_WEIGHT = 0.01
MOVING_WEIGHT = 0.1
"""The share of the newest outcome once settled, and while the backend is changing. Residuals come late and in
runs, so a correction that follows each of them only adds noise: on simulated fleets a share of 0.01 made the
median error 5 to 15 % smaller than 0.05 did. With it alone a machine that slows down would be followed for
hundreds of outcomes: so the share grows with the bias, after the idea of Trigg and Leach, "Exponential
smoothing with an adaptive response rate" (1967)."""
_NO_BIAS = 0.15
_RESPONSE = 0.7
"""Measured on simulated fleets: a smaller bias (as a log ratio) is noise, and a machine that became half as
fast is known within some 40 outcomes."""
_NOTHING_KNOWN: Mapping[int, float] = MappingProxyType({})

ERROR_WEIGHT = 0.1
"""Guessed: the share of the newest error; half is forgotten after 7 outcomes, so that the large errors of the
first outcomes, before the correction has settled, do not speak against the model for long."""


@dataclass(frozen=True, slots=True)
class TrustRule:
    """`error_factor` times the promised error, but at least `error_floor`, is tolerated (log ratios)."""

    error_factor: Annotated[float, Ge(1)] = 2.0  # guessed: "well above" the promised error
    error_floor: Annotated[float, Ge(0)] = 0.2  # guessed: as a log ratio; 0.2 is 22 %
    min_outcomes: Count = 8  # guessed: before that the running error says nothing

    def tolerated(self, promised_error: float) -> float:
        """The running error from which on a model that promised so much is not believed."""
        return max(self.error_factor * promised_error, self.error_floor)


class TrackRecord:
    """One entry per backend, of one model version: another version starts afresh."""

    def __init__(self, capacity: int, rule: TrustRule) -> None:
        self._rule = rule
        self._capacity = capacity
        self._version: str | None = None
        self._forget_all()

    def correction(self, slot: int) -> float:
        """What to add to the model's log(TTFT)."""
        return self._correction[slot]

    def error(self, slot: int) -> float | None:
        """The running absolute log error; None before the first outcome."""
        return self._error[slot] if self._outcomes[slot] else None

    def is_trusted(self, slot: int, promised_error: float) -> bool:
        """Whether the running error is no reason to doubt the model."""
        is_new = self._outcomes[slot] < self._rule.min_outcomes
        return is_new or self._error[slot] <= self._rule.tolerated(promised_error)

    def begin(self, version: str | None, offsets: Mapping[int, float] = _NOTHING_KNOWN) -> None:
        """Another model is in use: what was learned of the previous one is void.

        `offsets` are the corrections to start with, in log seconds, by slot; zero for all others.
        """
        if version == self._version:
            return
        self._version = version
        self._forget_all()
        for slot, offset in offsets.items():
            self.forget(slot, offset)

    def forget(self, slot: int, offset: float | None = None) -> None:
        """Another backend takes the slot; of this one the model file says `offset`, if anything."""
        self._outcomes[slot] = 0
        self._error[slot] = self._bias[slot] = 0.0
        self._correction[slot] = 0.0 if offset is None else offset
        self._settling[slot] = SETTLING_OUTCOMES if offset is None else KNOWN_OUTCOMES

    def observe(self, slot: int, version: str, model_log_ttft: float, ttft_s: float) -> None:
        """A request took `ttft_s` where the model, uncorrected, had said exp(`model_log_ttft`).

        Outcomes of another version than the one in use are late, and ignored.
        """
        if version != self._version or ttft_s <= 0:
            return
        miss = log(ttft_s) - model_log_ttft - self._correction[slot]
        count, bias = self._outcomes[slot], self._bias[slot]
        self._error[slot] += ERROR_WEIGHT * (abs(miss) - self._error[slot])
        self._bias[slot] = bias = bias + ERROR_WEIGHT * (miss - bias)
        lasting = min(MOVING_WEIGHT, max(SETTLED_WEIGHT, _RESPONSE * (abs(bias) - _NO_BIAS)))
        self._correction[slot] += max(lasting, 1 / (count + 1 + self._settling[slot])) * miss
        self._outcomes[slot] = count + 1

    def _forget_all(self) -> None:
        self._outcomes = [0] * self._capacity
        self._settling = [SETTLING_OUTCOMES] * self._capacity
        self._correction = [0.0] * self._capacity
        self._error = [0.0] * self._capacity
        self._bias = [0.0] * self._capacity
