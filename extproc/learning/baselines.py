"""The orders that a corrected estimate has to beat, beside the plain one: the load, and the last TTFT.

Each is what a simpler router could do with the same knowledge. Least load predicts no time, only an order.
"""

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES

_LOAD = FEATURES.index("load")


def least_load(observed: Observations) -> npt.NDArray[np.float64]:
    """Return the load that each request met: an order of backends, not a time."""
    return observed.features[:, _LOAD]


def last_ttft(before: Observations, observed: Observations) -> npt.NDArray[np.float64]:
    """Return the log of the newest TTFT that was known of the backend when each request came.

    `before` is what was observed earlier, on the same fleet. Where a backend is new, the median of all of it.
    """
    at_s = np.concatenate([before.at_s, observed.at_s])
    ttft_s = np.concatenate([before.ttft_s, observed.ttft_s])
    backend = np.concatenate([before.backend, observed.backend])
    typical = np.log(np.median(before.ttft_s if len(before) else observed.ttft_s))
    newest = np.full(len(observed), typical)
    for index in np.unique(observed.backend):
        is_it = backend == index
        ended_s = at_s[is_it] + ttft_s[is_it]
        order = np.argsort(ended_s, kind="stable")
        rows = np.flatnonzero(observed.backend == index)
        n_known = np.searchsorted(ended_s[order], observed.at_s[rows], side="right")
        known = np.log(ttft_s[is_it][order])
        newest[rows] = np.where(n_known > 0, known[n_known - 1], typical)
    return newest
