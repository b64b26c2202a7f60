"""The trees of a model, asked by LightGBM's C API
(https://lightgbm.readthedocs.io/en/latest/C-API.html, `LGBM_BoosterPredictForMat`).

A decision asks about 16 rows at most. For so few, what `Booster.predict` does in Python around the same call
takes longer than all the trees (measured: 103 µs with it, 45 without).
"""

import ctypes

import lightgbm
import numpy as np
import numpy.typing as npt
from lightgbm.basic import LightGBMError

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
    """The trees of a booster. They are asked for as long as it is there, so it is kept."""

    __slots__ = ("_booster",)

    def __init__(self, booster: lightgbm.Booster) -> None:
        self._booster = booster

    def predict(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`(n, n_features)` to `(n,)`: what `Booster.predict` says, to the last bit.

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
