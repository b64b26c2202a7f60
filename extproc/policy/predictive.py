"""Layer 2: the smallest predicted TTFT, where the model can be asked and believed.

The model is asked about the least loaded candidates of the medium zone. Each candidate is in doubt on its
own: a stale scrape, features outside the training range, a running error above the promised one. Those in
doubt compete by load alone, so that one bad backend does not turn the layer off for the others.
"""

from collections.abc import Mapping, Sequence
from math import exp

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.fleet.backend import Backend
from extproc.fleet.view import FleetView
from extproc.learning.predictor import Predictor
from extproc.policy.decision import Prediction, Reason


class Forecast(msgspec.Struct, frozen=True):
    """The model's predictions for the candidates that it could be asked about.

    `trusted` are the backends for which it is believed, in the order of the candidates. Predictions that
    differ by less than `promised_error`, the model's own on held-out samples, do not tell which is faster.
    """

    predictions: Mapping[Backend, Prediction]
    trusted: Sequence[Backend]
    promised_error: float = 0.0

    def doubt(self, view: FleetView, backend: Backend) -> Reason:
        """Return why the model is not believed about a candidate."""
        if not view.is_fresh(backend):
            return Reason.STALE_SIGNALS
        return Reason.RUNNING_ERROR if backend in self.predictions else Reason.OUT_OF_RANGE

    def fastest(self, allowed: Sequence[Backend], tie_fraction: float) -> list[Backend]:
        """Return the `allowed` whose prediction is the smallest, or within `tie_fraction` of it."""
        predictions = self.predictions
        limit_s = min([predictions[backend].ttft_s for backend in allowed]) * (1.0 + tie_fraction)
        return [backend for backend in allowed if predictions[backend].ttft_s <= limit_s]


def feature_rows(view: FleetView, backends: Sequence[Backend], input_tokens: int) -> npt.NDArray[np.float64]:
    """Return the features of some candidates, shape (n_backends, n_features), in the order of FEATURES.

    The input is what a backend has to compute: without the tokens that are expected in its prefix cache.
    """
    cached = view.cached_tokens
    return np.array(
        [(*view.signals(each), max(0.0, input_tokens - cached.get(each, 0.0))) for each in backends]
    )


def forecast(view: FleetView, input_tokens: int, model: Predictor) -> Forecast:
    """Ask the model about the candidates, as far as their features are known and in range."""
    fresh = [backend for backend in view.backends if view.is_fresh(backend)]
    if not fresh:
        return Forecast({}, ())
    rows = feature_rows(view, fresh, input_tokens)
    in_range = model.in_range(rows)
    answered = [backend for backend, is_known in zip(fresh, in_range.tolist(), strict=True) if is_known]
    answers = model.predict_log_ttft(rows[in_range]).tolist()
    version, promised_error, predictions, trusted = model.manifest.model_version, model.promised_error, {}, []
    for backend, log_ttft in zip(answered, answers, strict=True):
        ttft_s = exp(log_ttft + backend.predictions.correction)
        predictions[backend] = Prediction(version, log_ttft, ttft_s)
        if backend.predictions.is_trusted(promised_error):
            trusted.append(backend)
    return Forecast(predictions, trusted, promised_error)
