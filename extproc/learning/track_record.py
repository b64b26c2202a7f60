"""How the model does on each backend: its correction, and whether it is still to be believed.

Every outcome of a request for which the model was asked comes back with what the model had said. The mean
of the log residuals, slowly forgetting, is the backend's correction: one model serves unequal machines.
The running mean of the absolute log error *after* correction is held against the error that the model file
promises; where it is well above, layer 2 stands down for that backend until the error has come down again
(the model goes on being asked, not heeded) or another model arrives.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SETTLING_OUTCOMES = 1
"""Guessed: the weight of the starting point (no correction), in outcomes: a machine of half the speed is
known to within a tenth after ten."""
MIN_WEIGHT = 0.05
"""Guessed: the share of the newest outcome once settled; half is forgotten after 14 outcomes."""
ERROR_WEIGHT = 0.1
"""Guessed: the share of the newest error; half is forgotten after 7 outcomes, so that the large errors of the
first outcomes, before the correction has settled, do not speak against the model for long."""


@dataclass(frozen=True, slots=True)
class TrustRule:
    """`error_factor` times the promised error, but at least `error_floor`, is tolerated (log ratios)."""

    error_factor: float
    error_floor: float
    min_outcomes: int


class TrackRecord:
    """One entry per backend, of one model version: another version starts afresh."""

    def __init__(self, capacity: int, rule: TrustRule) -> None:
        self._rule = rule
        self._version: str | None = None
        self._outcomes = np.zeros(capacity, np.int64)
        self._correction = np.zeros(capacity)
        self._error = np.zeros(capacity)

    def correction(self, slots: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """What to add to the model's log(TTFT), shape (n_slots,)."""
        return self._correction[slots]

    def error(self, slot: int) -> float | None:
        """The running absolute log error; None before the first outcome."""
        return float(self._error[slot]) if self._outcomes[slot] else None

    def is_trusted(self, slots: npt.NDArray[np.intp], promised_error: float) -> npt.NDArray[np.bool_]:
        """Where the running error is no reason to doubt the model, shape (n_slots,)."""
        tolerated = max(self._rule.error_factor * promised_error, self._rule.error_floor)
        return (self._outcomes[slots] < self._rule.min_outcomes) | (self._error[slots] <= tolerated)

    def begin(self, version: str | None) -> None:
        """Another model is in use: what was learned of the previous one is void."""
        if version != self._version:
            self._version = version
            self._outcomes[:] = 0
            self._correction[:] = 0.0
            self._error[:] = 0.0

    def forget(self, slot: int) -> None:
        """Another backend takes the slot."""
        self._outcomes[slot] = 0
        self._correction[slot] = self._error[slot] = 0.0

    def observe(self, slot: int, version: str, model_log_ttft: float, ttft_s: float) -> None:
        """A request took `ttft_s` where the model, uncorrected, had said exp(`model_log_ttft`).

        Outcomes of another version than the one in use are late, and ignored.
        """
        if version != self._version or ttft_s <= 0:
            return
        residual = float(np.log(ttft_s)) - model_log_ttft
        count = int(self._outcomes[slot])
        error = abs(residual - self._correction[slot])
        self._error[slot] += ERROR_WEIGHT * (error - self._error[slot])
        weight = max(MIN_WEIGHT, 1 / (count + 1 + SETTLING_OUTCOMES))
        self._correction[slot] += weight * (residual - self._correction[slot])
        self._outcomes[slot] = count + 1
