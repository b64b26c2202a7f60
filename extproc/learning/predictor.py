"""A model that can be asked for corrections of the estimate; it never changes, a better one replaces it
whole."""

import numpy as np
import numpy.typing as npt

from extproc.learning.forest import Forest
from extproc.learning.manifest import Manifest
from extproc.learning.trees import Trees


class Predictor:
    """One loaded model; its trees have been checked."""

    __slots__ = ("_forest", "corrections", "manifest")

    def __init__(self, manifest: Manifest, trees: Trees) -> None:
        self.manifest = manifest
        self._forest = Forest(trees)
        self.corrections = self._forest.of_few

    @property
    def promised_error(self) -> float:
        """The absolute log error that the corrected estimate had on samples the model was not made from."""
        return self.manifest.held_out_errors.mean_abs_log_error

    def log_corrections(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return log(ttft / estimate) for many rows, `(n, n_features)` to `(n,)`; always finite."""
        return self._forest.sums(rows)
