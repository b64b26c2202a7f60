"""A decision: which layer placed a request, where, why, and on what grounds.

Log line, metric, header and sample are all made from this one object, so they agree by construction.
"""

from enum import StrEnum

import msgspec

from extproc.fleet.view import Candidate


class Layer(StrEnum):
    """Who decided."""

    PREDICT = "predict"
    LEAST_LOAD = "least_load"
    REJECT = "reject"


class Reason(StrEnum):
    """Why. Each fallback of layer 2 to least load has its own."""

    # predict
    LOWEST_PREDICTION = "lowest_prediction"
    PREDICTION_TIE = "prediction_tie"
    # least load
    LOW_ZONE = "low_zone"
    ALL_FAILING = "all_failing"  # yet their scrapes are fresh: the failures may be the requests' own
    UNPREDICTABLE = "unpredictable"  # no generation, or a body that could not be read
    NO_MODEL = "no_model"
    DISABLED = "disabled"
    STALE_SIGNALS = "stale_signals"
    OUT_OF_RANGE = "out_of_range"
    RUNNING_ERROR = "running_error"
    # reject
    SATURATED = "saturated"
    WAIT_TOO_LONG = "wait_too_long"  # below their limits, but in the queue of any of them
    PREDICTED_SATURATED = "predicted_saturated"
    FAILING = "failing"
    QUEUE_FULL = "queue_full"  # on arrival, or pushed out by a request that deserves the place more
    QUEUE_TIMEOUT = "queue_timeout"
    UNKNOWN_MODEL = "unknown_model"
    # neither: Envoy's own pool takes the request
    NO_BACKEND = "no_backend"


class Prediction(msgspec.Struct, frozen=True):
    """What the model said of the chosen backend: uncorrected, and as it was used."""

    model_version: str
    model_log_ttft: float
    ttft_s: float


class Decision(msgspec.Struct, frozen=True):
    """The result of `decide()`.

    `chosen` is None for a refusal. `prediction` is present wherever the model was asked about the chosen
    backend, also where it was not heeded. `guarded` counts the candidates that the guard took out,
    `predicted_saturated` are the slots among them that only their prediction took out.
    """

    layer: Layer
    reason: Reason
    chosen: Candidate | None = None
    prediction: Prediction | None = None
    guarded: int = 0
    predicted_saturated: tuple[int, ...] = ()
