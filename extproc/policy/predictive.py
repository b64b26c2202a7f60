"""Layer 2: the smallest predicted TTFT, where the model can be asked and believed.

The model is asked about the least loaded candidates of the medium zone. Each candidate is in doubt on its
own: a stale scrape, features outside the training range, a running error above the promised one. Those in
doubt compete by load alone, so that one bad backend does not turn the layer off for the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import exp

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.fleet.prediction_record import TrackRecord
from extproc.fleet.view import FleetView
from extproc.learning.predictor import Predictor
from extproc.policy.decision import Prediction, Reason


class Forecast(msgspec.Struct, frozen=True):
    """What the model says of the candidates, by their positions: of those that it could be asked about.

    `heeded` are the positions at which it is believed, in the order of the candidates. Predictions that
    differ by less than `promised_error`, the model's own on held-out samples, do not tell who is faster.
    """

    predictions: Mapping[int, Prediction]
    heeded: Sequence[int]
    promised_error: float = 0.0

    def doubt(self, view: FleetView, position: int) -> Reason:
        """Why the model is not heeded about a candidate."""
        if not view.is_fresh(position):
            return Reason.STALE_SIGNALS
        return Reason.RUNNING_ERROR if position in self.predictions else Reason.OUT_OF_RANGE


def feature_rows(view: FleetView, positions: Iterable[int], input_tokens: int) -> npt.NDArray[np.float64]:
    """The features of some candidates, shape (n_positions, n_features), in the order of FEATURES."""
    tokens = float(input_tokens)
    return np.array([(*view.signals(position), tokens) for position in positions])


def forecast(
    view: FleetView, asked: Iterable[int], input_tokens: int, model: Predictor, record: TrackRecord
) -> Forecast:
    """Ask the model about the `asked` candidates, as far as their features are known and in range."""
    fresh = [position for position in asked if view.is_fresh(position)]
    if not fresh:
        return Forecast({}, ())
    rows = feature_rows(view, fresh, input_tokens)
    in_range = model.in_range(rows)
    answered = [position for position, is_known in zip(fresh, in_range.tolist(), strict=True) if is_known]
    answers = model.predict_log_ttft(rows[in_range]).tolist()
    version, promised_error, predictions, heeded = model.manifest.model_version, model.promised_error, {}, []
    for position, log_ttft in zip(answered, answers, strict=True):
        slot = view.states[position].slot
        predictions[position] = Prediction(version, log_ttft, exp(log_ttft + record.correction(slot)))
        if record.is_trusted(slot, promised_error):
            heeded.append(position)
    return Forecast(predictions, heeded, promised_error)


def fastest(said: Forecast, allowed: Sequence[int], tie_fraction: float) -> list[int]:
    """The `allowed` whose prediction is the smallest, or within `tie_fraction` of it."""
    predictions = said.predictions
    limit_s = min([predictions[position].ttft_s for position in allowed]) * (1.0 + tie_fraction)
    return [position for position in allowed if predictions[position].ttft_s <= limit_s]
