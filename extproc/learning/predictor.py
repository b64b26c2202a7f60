"""A model that can be asked: log TTFT per candidate, and whether it has seen anything like the question.

The predictive layer asks it about the least loaded candidates of one request, inside the decision.
"""

import ctypes

import lightgbm
import numpy as np
import numpy.typing as npt
from lightgbm.basic import LightGBMError

from extproc.learning.features import RANGE_SLACK
from extproc.learning.log_line import on_line
from extproc.learning.manifest import Manifest

_FLOAT64, _ROW_MAJOR, _NORMAL, _FIRST_TREE, _ALL_TREES = 1, 1, 0, 0, -1
_PARAMETERS = b"num_threads=1"

# By PyDLL the interpreter's lock is kept: another thread that took it meanwhile would hold the decision up.
_LIBRARY = ctypes.PyDLL(lightgbm.basic._LIB._name)  # type: ignore[attr-defined]  # nothing public tells where
_LIBRARY.LGBM_GetLastError.restype = ctypes.c_char_p
_predict = _LIBRARY.LGBM_BoosterPredictForMat
_predict.argtypes = (
    ctypes.c_void_p,  # booster
    ctypes.c_void_p,  # rows
    ctypes.c_int,  # their type
    ctypes.c_int32,  # how many rows
    ctypes.c_int32,  # and columns
    ctypes.c_int,  # whether row by row
    ctypes.c_int,  # kind of prediction
    ctypes.c_int,  # first tree
    ctypes.c_int,  # number of trees
    ctypes.c_char_p,  # parameters
    ctypes.POINTER(ctypes.c_int64),  # how many predictions were written
    ctypes.c_void_p,  # predictions
)


class Forest:
    """The trees of a booster, asked by LightGBM's C API; the booster is kept, since they go with it.

    See https://lightgbm.readthedocs.io/en/latest/C-API.html, `LGBM_BoosterPredictForMat`. A decision asks
    about 16 rows at most. For so few, what `Booster.predict` does in Python around the same call takes longer
    than all the trees (measured: 103 µs with it, 45 without).
    """

    __slots__ = ("_booster",)

    def __init__(self, booster: lightgbm.Booster) -> None:
        self._booster = booster

    def predict(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what `Booster.predict` says, to the last bit: `(n, n_features)` to `(n,)`.

        Raises LightGBMError where the number of features is another one.
        """
        data = np.ascontiguousarray(rows, dtype=np.float64)
        found = np.empty(len(data))
        has_failed = _predict(
            self._booster._handle,
            data.ctypes.data,
            _FLOAT64,
            *data.shape,
            _ROW_MAJOR,
            _NORMAL,
            _FIRST_TREE,
            _ALL_TREES,
            _PARAMETERS,
            ctypes.byref(ctypes.c_int64()),
            found.ctypes.data,
        )
        if has_failed:
            raise LightGBMError(_LIBRARY.LGBM_GetLastError().decode())
        return found


_SPAN_SLACK = 0.1
"""Share of a feature's trained span by which a row may lie outside of it; guessed."""


class Predictor:
    """One loaded model; it never changes, and a better one replaces it whole."""

    __slots__ = ("_forest", "_high", "_low", "_weights", "manifest")

    def __init__(self, manifest: Manifest, booster: lightgbm.Booster) -> None:
        bounds = np.array([manifest.training_range[name] for name in manifest.features], dtype=np.float64)
        slack = np.array(RANGE_SLACK)
        margin = np.maximum(slack, _SPAN_SLACK * (bounds[:, 1] - bounds[:, 0]))
        self.manifest = manifest
        self._forest = Forest(booster)
        self._weights = np.array(manifest.line.weights)
        self._low = bounds[:, 0] - margin
        self._high = bounds[:, 1] + margin

    @property
    def promised_error(self) -> float:
        """The absolute log error that the model had on samples it was not made from."""
        return self.manifest.held_out_errors.mean_abs_log_error

    def predict_log_ttft(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The natural logarithm of the TTFT in seconds, `(n, n_features) float64` to `(n,) float64`.

        Always finite; outside the trained range the line goes on by itself, and NaN counts as 0.
        """
        if len(rows) == 0:
            return np.empty(0)
        return on_line(rows, self._weights, self.manifest.line.level) + self._forest.predict(rows)

    def in_range(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which rows resemble the training samples: `(n, n_features)` to `(n,)`; NaN never does.

        Each feature may lie outside its trained range by a tenth of that range or by its `RANGE_SLACK`,
        whichever is more. The slack alone counts where a feature never varied in training.
        """
        is_inside: npt.NDArray[np.bool_] = np.logical_and.reduce(
            (rows >= self._low) & (rows <= self._high), axis=1
        )
        return is_inside
