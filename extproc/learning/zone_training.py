"""Makes the classifier of zones from samples of all zones.

Each cut is a logistic regression, in which both sides count the same, however many idle samples there are,
and a penalty on the weights keeps them finite where the sides can be told apart without error. The weights of
features that are monotone in the model are so here: more load never means a lower zone.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.zone_bounds import ZoneBounds
from extproc.learning.zone_classifier import MAX_WEIGHT, ZoneClassifier

MIN_LEVEL_SAMPLES = 50
"""Fewer samples of a level do not tell where it begins; guessed."""

_PENALTY = 1e-3
"""Guessed: next to losses of which each is a mean, it only matters where there is no error at all."""

_BOUNDS = [*((0.0, None) if direction > 0 else (None, None) for direction in MONOTONE), (None, None)]
_NEVER = ((0.0,) * len(FEATURES), -MAX_WEIGHT)

Cut = tuple[tuple[float, ...], float]


def fit_zone_classifier(train: Observations, zone: ZoneBounds) -> ZoneClassifier | None:
    """The classifier made from samples of all zones; None where the low or the medium zone has too few.

    With too few saturated ones, it never says saturated.
    """
    is_medium, is_saturated = train.ttft_s >= zone.low_s, train.ttft_s >= zone.saturated_s
    n_saturated = int(is_saturated.sum())
    n_low, n_medium = int((~is_medium).sum()), int(is_medium.sum()) - n_saturated
    if min(n_low, n_medium) < MIN_LEVEL_SAMPLES:
        return None
    medium = _fit_cut(train.features, is_medium)
    saturated = _fit_cut(train.features, is_saturated) if n_saturated >= MIN_LEVEL_SAMPLES else _NEVER
    return ZoneClassifier((medium[0], saturated[0]), (medium[1], saturated[1]))


def _fit_cut(features: npt.NDArray[np.float64], is_above: npt.NDArray[np.bool_]) -> Cut:
    """Weights and bias for the logarithms of features, of which those that never vary get no weight."""
    logs = np.log1p(features)
    middle, spread = logs.mean(axis=0), logs.std(axis=0)
    varies = spread > 1e-9
    scaled = np.where(varies, (logs - middle) / np.where(varies, spread, 1.0), 0.0)
    design = np.hstack([scaled, np.ones((len(scaled), 1))])
    side = np.where(is_above, 1.0, -1.0)
    share = np.where(is_above, 0.5 / is_above.sum(), 0.5 / (~is_above).sum())
    fitted = minimize(
        _loss, np.zeros(design.shape[1]), (design, side, share), "L-BFGS-B", jac=True, bounds=_BOUNDS
    ).x
    weights = np.where(varies, fitted[:-1] / np.where(varies, spread, 1.0), 0.0)
    bias = float(fitted[-1] - weights @ middle)
    return tuple(np.clip(weights, -MAX_WEIGHT, MAX_WEIGHT).tolist()), float(
        np.clip(bias, -MAX_WEIGHT, MAX_WEIGHT)
    )


def _loss(
    parameters: npt.NDArray[np.float64],
    design: npt.NDArray[np.float64],
    side: npt.NDArray[np.float64],
    share: npt.NDArray[np.float64],
) -> tuple[float, npt.NDArray[np.float64]]:
    """The logistic loss with its penalty, and the gradient of both.

    The long products are no BLAS ones: its threads, with the cores busy otherwise, made this 20 times slower.
    """
    margin = side * np.einsum("ij,j->i", design, parameters)
    penalised = np.append(parameters[:-1], 0.0)
    loss = float((share * np.logaddexp(0.0, -margin)).sum() + _PENALTY / 2 * penalised @ penalised)
    doubt = np.exp(-np.logaddexp(0.0, margin))
    return loss, _PENALTY * penalised - np.einsum("ij,i->j", design, share * side * doubt)
