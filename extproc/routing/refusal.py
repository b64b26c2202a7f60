"""The answer to a request that is not placed.

503 with `Retry-After` where all candidates are saturated or fail, 404 where no backend serves the model, both
with an error body in the form of OpenAI's API. The time to come back is measured: what has to drain,
divided by how fast it drains.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from extproc.exchange.messages import Reject
from extproc.fleet.bounds import Count
from extproc.fleet.view import FleetView
from extproc.policy.decision import Layer, Reason

LAYER_HEADER = "x-extproc-layer"
REASON_HEADER = "x-extproc-reason"

_MESSAGES = {
    Reason.SATURATED: "All backends that serve this model are at their limit. Please retry later.",
    Reason.WAIT_TOO_LONG: "All backends that serve this model have too long a queue. Please retry later.",
    Reason.TOO_LATE: "No backend that serves this model would answer within the limit of this request.",
    Reason.FAILING: "All backends that serve this model are failing. Please retry later.",
    Reason.QUEUE_FULL: "All backends that serve this model are at their limit, and too many requests wait.",
    Reason.QUEUE_TIMEOUT: "No backend that serves this model could take the request in time. Please retry.",
}


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """`Retry-After` is at most `max_retry_after_s`."""

    max_retry_after_s: Count = 60  # guessed


def retry_after_s(view: FleetView, rules: AdmissionRules, waiting: int = 0) -> int:
    """Return the whole seconds until a candidate can be expected to take requests again, 1 to the maximum.

    The `waiting` requests come first: all candidates together have to take them before.
    """
    now_s = view.now_s
    waits_s = [math.inf]
    total_per_s = 0.0
    for backend, load in zip(view.backends, view.loads, strict=True):
        if backend.breaker.admits_at_s > now_s:
            waits_s.append(backend.breaker.admits_at_s - now_s)
            continue
        rate_per_s = backend.drain_rate.per_second(now_s)
        total_per_s += rate_per_s
        excess = max(1.0, load - backend.closed_above)
        waits_s.append(excess / rate_per_s if rate_per_s > 0 else math.inf)
    queue_s = waiting / total_per_s if total_per_s > 0 else 0.0
    return max(1, math.ceil(min(min(waits_s) + queue_s, rules.max_retry_after_s)))


def overloaded(reason: Reason, retry_s: int) -> Reject:
    """Return the refusal of a request that some backend would serve at another time."""
    error = {"message": _MESSAGES[reason], "type": "overloaded_error", "param": None, "code": 503}
    return _reject(503, error, reason, {"retry-after": str(retry_s)})


def unknown_model(model: str) -> Reject:
    """Return the refusal of a request for a model that no backend serves, in vLLM's words."""
    shown = model if len(model) <= 200 else model[:200] + "…"
    message = f"The model `{shown}` does not exist."
    error = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
    return _reject(404, error, Reason.UNKNOWN_MODEL, {})


def _reject(status: int, error: Mapping[str, object], reason: Reason, headers: Mapping[str, str]) -> Reject:
    body = msgspec.json.encode({"error": error})
    own_headers = {
        "content-type": "application/json",
        LAYER_HEADER: Layer.REJECT.value,
        REASON_HEADER: reason.value,
    }
    return Reject(status, body, {**own_headers, **headers})
