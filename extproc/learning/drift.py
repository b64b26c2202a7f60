"""Whether the model in use still helps, judged by samples alone.

A sidecar stops going by the model for a backend where the plain estimate predicts better
(`fleet.prediction_record`). The trainer applies the same rule to the recorded predictions, so that it begins
to look for a better model when a sidecar stops going by this one. A drift that was seen stays seen, until
another model is in use.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from extproc.fleet.bounds import MAX_BACKENDS
from extproc.fleet.prediction_record import Contest, TrustRule
from extproc.fleet.wait_terms import ExpectedWait
from extproc.learning.features import TERMS

DRIFT_COLUMNS = (
    "backend",
    "is_stream",
    "is_clean",
    "model_version",
    "predicted_ttft_s",
    "ttft_s",
    *TERMS,
)
"""The fields of `Sample` that are read here."""

_MAX_NAMES = 2 * MAX_BACKENDS
"""A fleet, and the backends that were there before; samples of others are ignored."""


class DriftWatch:
    """Follows the predictions of one model version; another version starts afresh.

    `drifted` are the backends about which it has become worse than the plain estimate, with the number of
    outcomes since.
    """

    def __init__(self, rule: TrustRule) -> None:
        self.drifted: dict[str, int] = {}
        self._rule = rule
        self._version: str | None = None
        self._errors: dict[str, Contest] = {}

    def begin(self, version: str | None) -> None:
        """Begin anew: another model is in use, or none."""
        if version != self._version:
            self._version = version
            self._errors, self.drifted = {}, {}

    def observe(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take in samples, in the order in which they ended; `columns` maps `DRIFT_COLUMNS` to arrays."""
        if self._version is None:
            return
        number = {
            name: np.asarray(columns[name], dtype=np.float64)
            for name in ("ttft_s", "predicted_ttft_s", *TERMS)
        }
        plain_s = ExpectedWait(*(number[name] for name in TERMS)).ttft_s  # type: ignore[arg-type]
        times = np.column_stack([number["ttft_s"], number["predicted_ttft_s"], plain_s])
        asked = ((times > 0) & (times < np.inf)).all(axis=1)
        asked &= np.asarray(columns["is_clean"], dtype=bool) & np.asarray(columns["is_stream"], dtype=bool)
        asked &= np.asarray(columns["model_version"], dtype=object) == self._version
        logs = np.log(times[asked])
        errors = np.abs(logs[:, 1:] - logs[:, :1])
        backends = np.asarray(columns["backend"], dtype=object)[asked]
        for name, (corrected, plain) in zip(backends, errors.tolist(), strict=True):
            self._judge(name, corrected, plain)

    def _judge(self, backend: object, corrected: float, plain: float) -> None:
        if not isinstance(backend, str):
            return
        if backend in self.drifted:
            self.drifted[backend] += 1
            return
        if backend not in self._errors and len(self._errors) >= _MAX_NAMES:
            return
        error = self._errors.setdefault(backend, Contest())
        error.add(corrected, plain)
        if error.count >= self._rule.min_outcomes and error.corrected > error.plain:
            self.drifted[backend] = 0
