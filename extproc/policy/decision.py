"""A decision: which layer placed a request, where, why, and on what grounds.

Log line, metric, header and sample are all made from this one object, so they agree by construction.
"""

from collections import Counter
from enum import StrEnum

import msgspec

from extproc.fleet.backend import Backend
from extproc.fleet.view import CandidateFacts


class Layer(StrEnum):
    """The layer that decided."""

    PREDICT = "predict"
    LEAST_LOAD = "least_load"
    REJECT = "reject"


class Reason(StrEnum):
    """Why it decided so. Each fallback of layer 2 to least load has its own."""

    # predict
    LOWEST_PREDICTION = "lowest_prediction"
    # least load
    LOW_ZONE = "low_zone"
    UNHEARD = "unheard"  # nothing was heard of it for a while: it is tried
    ALL_FAILING = "all_failing"  # yet their scrapes are fresh: the failures may be the requests' own
    LAST_RESORT = "last_resort"  # so is the chosen one's; the others are full
    UNPREDICTABLE = "unpredictable"  # no generation, or a body that could not be read
    NO_MODEL = "no_model"
    DISABLED = "disabled"
    STALE_SIGNALS = "stale_signals"
    RUNNING_ERROR = (
        "running_error"  # the plain estimate has predicted at least as well, or it is not known yet
    )
    # reject
    SATURATED = "saturated"
    WAIT_TOO_LONG = "wait_too_long"  # below their limits, but in the queue of any of them
    TOO_LATE = "too_late"  # by the request's own limit of the wait
    FAILING = "failing"
    ASLEEP = "asleep"  # in vLLM's sleep mode
    TENANT_SHARE = "tenant_share"  # nearly full, and the tenant has many more in flight than others
    QUEUE_FULL = "queue_full"  # on arrival, or pushed out by a request that deserves the place more
    QUEUE_TIMEOUT = "queue_timeout"
    LARGE_BODIES = "large_bodies"  # Envoy holds this many already
    UNKNOWN_MODEL = "unknown_model"
    MODEL_GONE = "model_gone"  # the last backend that served it has left a moment ago
    UNKNOWN_RESPONSE = "unknown_response"  # which backend has that stored response is not known
    CUT_OFF = "cut_off"  # a compressed body that could not be unpacked whole
    # neither: Envoy's own pool takes the request
    NO_BACKEND = "no_backend"


class Prediction(msgspec.Struct, frozen=True):
    """The estimate for the chosen backend as the model corrects it."""

    model_version: str
    ttft_s: float


class Decision(msgspec.Struct, frozen=True):
    """The result of `decide()`.

    `chosen` is None for a refusal, else the backend; `facts` say what was known of it. `prediction` is
    present wherever the model was asked about the chosen backend, also where it had no say. `guarded`
    counts the candidates that the guard took out.
    """

    layer: Layer
    reason: Reason
    chosen: Backend | None = None
    facts: CandidateFacts | None = None
    prediction: Prediction | None = None
    guarded: int = 0


class DecisionCounts:
    """Decisions by layer and reason since the start; both are enums, so the number of series is bounded."""

    def __init__(self) -> None:
        self.by_reason: Counter[tuple[Layer, Reason]] = Counter()
        self.guarded = 0
        self.passed_through = 0
        self.answered = 0
        self.expected_cached_tokens = 0.0
        self.followed_sessions = 0

    def count(self, decision: Decision) -> None:
        """Count a decision; `guarded` has those in which the guard took at least one candidate out."""
        self.by_reason[decision.layer, decision.reason] += 1
        self.guarded += decision.guarded > 0
        if decision.facts is not None:
            self.expected_cached_tokens += decision.facts.expected_cached_tokens

    def by_layer(self) -> dict[str, int]:
        """Return decisions by layer, and as `guard` those that the guard had a part in."""
        totals = {"guard": self.guarded} | {
            layer.value: 0 for layer in (Layer.PREDICT, Layer.LEAST_LOAD, Layer.REJECT)
        }
        for (layer, _), count in self.by_reason.items():
            totals[layer.value] += count
        return totals
