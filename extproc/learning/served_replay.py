"""Predictions of the past as serving would have made them: each with what was known at that moment.

Serving adds each backend's own correction to what the model says, and the correction comes from outcomes. So
does a replay: it goes through time, and a request gets the correction made of those requests that had had
their first token before it came. Nothing of the future is in it. (Serving learns of an outcome when the
response has ended, so its correction is somewhat older.)
"""

import numpy as np
import numpy.typing as npt

from extproc.fleet.prediction_record import PredictionRecord, TrustRule
from extproc.learning.dataset import Observations

_VERSION = "replay"
_NO_RULE = TrustRule(error_factor=1.0, error_floor=1.0, min_outcomes=0)
"""Trust is not asked for in a replay."""


def replay(
    log_ttft_model: npt.NDArray[np.float64],
    observed: Observations,
    start: npt.NDArray[np.float64],
    teaches: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the `(n,)` predictions of a model, corrected as in serving; `start` has the first ones, per
    backend.

    `teaches` is where an outcome goes into the correction: by default everywhere. Requests outside the
    medium zone should not, since in serving the model is not asked about them.
    """
    records = _records(start)
    said, ttft_s, backends = log_ttft_model.tolist(), observed.ttft_s.tolist(), observed.backend.tolist()
    pupils = np.arange(len(observed)) if teaches is None else np.flatnonzero(teaches)
    ended_s = (observed.at_s + observed.ttft_s)[pupils]
    order = np.argsort(ended_s, kind="stable")
    outcomes = pupils[order].tolist()
    n_known = np.searchsorted(ended_s[order], observed.at_s, side="right").tolist()
    corrected, known = log_ttft_model.copy(), 0
    for row in range(len(observed)):
        for outcome in outcomes[known : n_known[row]]:
            records[backends[outcome]].observe(_VERSION, said[outcome], ttft_s[outcome])
        known = n_known[row]
        corrected[row] += records[backends[row]].correction
    return corrected


def settled_corrections(
    log_ttft_model: npt.NDArray[np.float64], observed: Observations, start: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return each backend's correction once all outcomes are known, `(n_backends,)`."""
    records = _records(start)
    for row in np.argsort(observed.at_s + observed.ttft_s, kind="stable").tolist():
        said, ttft_s = float(log_ttft_model[row]), float(observed.ttft_s[row])
        records[observed.backend[row]].observe(_VERSION, said, ttft_s)
    return np.array([record.correction for record in records])


def _records(start: npt.NDArray[np.float64]) -> list[PredictionRecord]:
    records = [PredictionRecord(_NO_RULE) for _ in start]
    for record, offset in zip(records, start.tolist(), strict=True):
        record.begin(_VERSION, offset)
    return records
