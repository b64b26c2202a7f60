"""Whether the machines behind a model have changed, told from samples alone.

The sidecar stands down for a backend where the running error of its predictions is well above the promised
one (`fleet.prediction_record`). The trainer applies the same rule to the recorded predictions, so that it
begins to look for a better model when the sidecar stops believing this one. A drift that was seen stays seen:
the correction soon makes the error small again, but the file is wrong about that backend until it is
replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.fleet.bounds import MAX_BACKENDS
from extproc.fleet.prediction_record import RunningError, TrustRule
from extproc.learning.dataset import Observations
from extproc.learning.features import ZoneBounds
from extproc.learning.fit import MIN_SAMPLES

DRIFT_COLUMNS = ("at_s", "backend", "is_stream", "is_clean", "model_version", "predicted_ttft_s", "ttft_s")
"""The fields of `Sample` that are read here."""

_SHARE_OF_NEW = 3

_MAX_NAMES = 2 * MAX_BACKENDS
"""A fleet, and those who were there before; what samples say of further ones is ignored."""


@dataclass(slots=True)
class Drift:
    """One backend that is not what it was: since when, as a unix time, and how many samples came since."""

    since_s: float
    samples: int = 0


class DriftWatch:
    """Follows the predictions of one model version; another version starts afresh."""

    def __init__(self, rule: TrustRule) -> None:
        self._rule = rule
        self._version: str | None = None
        self._promised_error = 0.0
        self._errors: dict[str, RunningError] = {}
        self._drifts: dict[str, Drift] = {}

    @property
    def drifts(self) -> Mapping[str, Drift]:
        """The backends that have drifted since this model version was begun, by name."""
        return self._drifts

    def begin(self, version: str | None, promised_error: float = 0.0) -> None:
        """Another model is in use, or none."""
        if version == self._version:
            return
        self._version = version
        self._promised_error = promised_error
        self._errors, self._drifts = {}, {}

    def observe(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take in samples, in the order in which they ended; `columns` maps `DRIFT_COLUMNS` to arrays."""
        if self._version is None:
            return
        at_s = np.asarray(columns["at_s"], dtype=np.float64)
        ttft_s = np.asarray(columns["ttft_s"], dtype=np.float64)
        predicted_s = np.asarray(columns["predicted_ttft_s"], dtype=np.float64)
        backend = np.asarray(columns["backend"], dtype=object)
        is_usable = np.asarray(columns["is_clean"], dtype=bool) & np.asarray(columns["is_stream"], dtype=bool)
        is_usable &= _is_positive(at_s) & _is_positive(ttft_s)
        asked = is_usable & _is_positive(predicted_s)
        asked &= np.asarray(columns["model_version"], dtype=object) == self._version
        errors = np.abs(np.log(ttft_s[asked]) - np.log(predicted_s[asked]))
        for name, then_s, error in zip(backend[asked], at_s[asked].tolist(), errors.tolist(), strict=True):
            self._judge(name, then_s, error)
        for name, drift in self._drifts.items():
            is_since = is_usable & (backend == name) & (at_s >= drift.since_s)
            drift.samples += int(np.count_nonzero(is_since))

    def _judge(self, backend: object, at_s: float, error: float) -> None:
        if not isinstance(backend, str) or backend in self._drifts:
            return
        if backend not in self._errors and len(self._errors) >= _MAX_NAMES:
            return
        running = self._errors.setdefault(backend, RunningError())
        running.add(error)
        if not running.is_tolerable(self._rule, self._promised_error):
            self._drifts[backend] = Drift(at_s)


def since_drift(observations: Observations, drifts: Mapping[str, Drift], zone: ZoneBounds) -> Observations:
    """What a challenger for a drifted fleet is made of and judged by: what came since, and some from before.

    What a drifted backend did before is left out, for it is another machine. Of the others twice as much of
    the medium zone as came since is kept, so that those by which a model is judged, the newest, are all of
    the new time: a month of the old one would outweigh it.
    """
    if not drifts:
        return observations
    keep = np.ones(len(observations), dtype=bool)
    for name, drift in drifts.items():
        if name in observations.fleet:
            is_it = observations.backend == observations.fleet.index(name)
            keep &= ~(is_it & (observations.at_s < drift.since_s))
    kept = observations.take(keep)
    medium = np.flatnonzero(zone.is_medium(kept.ttft_s))
    began_s = min(drift.since_s for drift in drifts.values())
    wanted = max(MIN_SAMPLES, _SHARE_OF_NEW * int(np.count_nonzero(kept.at_s[medium] >= began_s)))
    return kept.take(slice(medium[-wanted] if len(medium) > wanted else 0, None))


def _is_positive(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """False for NaN and infinities too."""
    return (values > 0) & (values < np.inf)
