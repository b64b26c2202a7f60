"""How the model does on one backend: its correction, and whether it is still to be believed.

Every outcome of a request for which the model was asked comes back with the model's answer. The mean of the
log residuals, slowly forgetting, is the backend's correction: one model serves unequal machines. It starts at
the offset that the model file has for that backend, or at zero.
The running mean of the absolute log error *after* correction is held against the error that the model file
promises; where it is well above, layer 2 stands down for that backend until the error has come down again
(the model is still asked, but does not decide) or another model arrives.
"""

from dataclasses import dataclass
from math import log
from typing import Annotated

from annotated_types import Ge

from extproc.fleet.bounds import Count

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
        """Return the running error above which a model that promised so much is not believed."""
        return max(self.error_factor * promised_error, self.error_floor)


class RunningError:
    """A slowly forgetting mean of absolute log errors; 0 before the first of the `outcomes`."""

    __slots__ = ("outcomes", "value")

    def __init__(self) -> None:
        self.outcomes = 0
        self.value = 0.0

    def add(self, error: float) -> None:
        """Take in the error of one outcome."""
        self.value += ERROR_WEIGHT * (error - self.value)
        self.outcomes += 1

    def is_tolerable(self, rule: TrustRule, promised_error: float) -> bool:
        """Return whether it is no reason to doubt the model; too few outcomes are none."""
        return self.outcomes < rule.min_outcomes or self.value <= rule.tolerated(promised_error)


class PredictionRecord:
    """One backend's entry about one model version; `correction` is added to the model's log(TTFT)."""

    __slots__ = ("_bias", "_error", "_rule", "_settling", "_version", "correction")

    def __init__(self, rule: TrustRule) -> None:
        self.correction = 0.0
        self._rule = rule
        self._version: str | None = None
        self._error = RunningError()
        self._bias = 0.0
        self._settling = SETTLING_OUTCOMES

    @property
    def error(self) -> float | None:
        """The running absolute log error; None before the first outcome."""
        return self._error.value if self._error.outcomes else None

    def is_trusted(self, promised_error: float) -> bool:
        """Return whether the running error is no reason to doubt the model."""
        return self._error.is_tolerable(self._rule, promised_error)

    def begin(self, version: str | None, offset: float | None = None) -> None:
        """Follow another model, which starts with `offset` log seconds; the same version changes nothing."""
        if version == self._version:
            return
        self._version = version
        self._error = RunningError()
        self._bias = 0.0
        self.correction = 0.0 if offset is None else offset
        self._settling = SETTLING_OUTCOMES if offset is None else KNOWN_OUTCOMES

    def observe(self, version: str, model_log_ttft: float, ttft_s: float) -> None:
        """Learn that a request took `ttft_s` where the model, uncorrected, said exp(`model_log_ttft`).

        Outcomes of another version than the one in use are late, and ignored.
        """
        if version != self._version or ttft_s <= 0:
            return
        miss = log(ttft_s) - model_log_ttft - self.correction
        count, bias = self._error.outcomes, self._bias
        self._error.add(abs(miss))
        self._bias = bias = bias + ERROR_WEIGHT * (miss - bias)
        lasting = min(MOVING_WEIGHT, max(SETTLED_WEIGHT, _RESPONSE * (abs(bias) - _NO_BIAS)))
        self.correction += max(lasting, 1 / (count + 1 + self._settling)) * miss
