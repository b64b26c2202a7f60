"""Layer 2: the smallest predicted TTFT, where the model can be asked and believed.

The model is asked about the least loaded candidates of the medium zone. Each candidate is in doubt on its
own: a stale scrape, features outside the training range, a running error above the promised one. Those in
doubt compete by load alone, so that one bad backend does not turn the layer off for the others.
"""

from collections.abc import Iterable

import msgspec
import numpy as np

from extproc.fleet.load import Bools, Floats
from extproc.fleet.view import FleetView
from extproc.learning.predictor import Predictor
from extproc.learning.track_record import TrackRecord
from extproc.policy.decision import Prediction, Reason


class Forecast(msgspec.Struct, frozen=True):
    """What the model says of the candidates, arrays of shape (n_candidates,).

    `ttft_s` is NaN where the model was not asked; `is_heeded` is where it was asked and is believed.
    """

    model_version: str
    model_log_ttft: Floats
    ttft_s: Floats
    is_in_range: Bools
    is_heeded: Bools

    def prediction(self, position: int) -> Prediction | None:
        """What was said of one candidate."""
        if np.isnan(self.ttft_s[position]):
            return None
        log_ttft, ttft_s = float(self.model_log_ttft[position]), float(self.ttft_s[position])
        return Prediction(self.model_version, log_ttft, ttft_s)

    def doubt(self, view: FleetView, position: int) -> Reason:
        """Why the model is not heeded about a candidate."""
        if not view.is_fresh[position]:
            return Reason.STALE_SIGNALS
        return Reason.RUNNING_ERROR if self.is_in_range[position] else Reason.OUT_OF_RANGE


def feature_rows(view: FleetView, positions: Iterable[int], input_tokens: int) -> Floats:
    """The features of some candidates, shape (n_positions, n_features), in the order of FEATURES."""
    tokens = float(input_tokens)
    return np.array([(*view.signals(position), tokens) for position in positions])


def forecast(
    view: FleetView, asked: Bools, input_tokens: int, model: Predictor, record: TrackRecord
) -> Forecast:
    """Ask the model about the `asked` candidates, as far as their features are known and in range."""
    model_log_ttft, ttft_s = np.full(view.slots.size, np.nan), np.full(view.slots.size, np.nan)
    is_in_range, is_heeded = np.zeros(view.slots.size, np.bool_), np.zeros(view.slots.size, np.bool_)
    fresh = (asked & view.is_fresh).nonzero()[0]
    if fresh.size:
        rows = feature_rows(view, fresh.tolist(), input_tokens)
        in_range = model.in_range(rows)
        is_in_range[fresh] = in_range
        answered, rows = fresh[in_range], rows[in_range]
        slots = view.slots[answered]
        log_ttft = model.predict_log_ttft(rows)
        model_log_ttft[answered] = log_ttft
        ttft_s[answered] = np.exp(log_ttft + record.correction(slots))
        is_heeded[answered] = record.is_trusted(slots, model.promised_error)
    return Forecast(model.manifest.model_version, model_log_ttft, ttft_s, is_in_range, is_heeded)


def fastest(said: Forecast, allowed: Bools, tie_fraction: float) -> Bools:
    """The `allowed` whose prediction is the smallest, or within `tie_fraction` of it."""
    ttft_s = np.where(allowed, said.ttft_s, np.inf)
    result: Bools = ttft_s <= ttft_s.min() * (1.0 + tie_fraction)
    return result & allowed
