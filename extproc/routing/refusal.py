"""The answer to a request that is not placed.

503 with `Retry-After` where all candidates are saturated or fail or have just left, 404 where no backend
serves the model, both with an error body in the form of OpenAI's API, or of Anthropic's. The time to come
back is measured: what has to drain, and those that were promised a place before, divided by how fast it
drains.

Gateways have a rule of their own, by the Endpoint Picker Protocol: 429 where there is capacity and it is
contended, 503 where there is none, and a header that says why.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from extproc.exchange.early_answers import DROPPED_HEADER, NO_ENDPOINTS, SATURATED
from extproc.exchange.messages import Reject
from extproc.fleet.bounds import Count
from extproc.fleet.view import FleetView
from extproc.policy.decision import Layer, Reason
from extproc.request.api import Api
from extproc.request.request import Request
from extproc.routing.promised_returns import PromisedReturns

SPREAD = 0.25
"""Guessed: the share of its time by which a client comes back earlier or later."""
LAYER_HEADER = "x-extproc-layer"
REASON_HEADER = "x-extproc-reason"

TEXTS = {
    Reason.SATURATED: "All backends that serve this model are at their limit. Please retry later.",
    Reason.WAIT_TOO_LONG: "All backends that serve this model have too long a queue. Please retry later.",
    Reason.TOO_LATE: "No backend can keep the limit of this request. Retry elsewhere, or with a longer one.",
    Reason.FAILING: "All backends that serve this model are failing. Please retry later.",
    Reason.ASLEEP: "All backends that serve this model are in sleep mode. Please retry later.",
    Reason.TENANT_SHARE: "This tenant has too many requests in flight while others wait. Please retry later.",
    Reason.QUEUE_FULL: "Too many requests wait for the backends that serve this model. Please retry later.",
    Reason.QUEUE_TIMEOUT: "No backend of this model could take the request in time. Please retry later.",
    Reason.LARGE_BODIES: "Too many large requests are under way. Please retry later, or send less.",
    Reason.MODEL_GONE: "The backends that serve this model are gone for the moment. Please retry later.",
    Reason.NO_BACKEND: "No backend is ready. Please retry later.",
}

_CONTENDED = {
    Reason.SATURATED: SATURATED,
    Reason.WAIT_TOO_LONG: SATURATED,
    Reason.TOO_LATE: SATURATED,
    Reason.TENANT_SHARE: SATURATED,
    Reason.QUEUE_FULL: SATURATED,
    Reason.QUEUE_TIMEOUT: "rejected-ttl-expired",
}
"""Refusals because servers are busy, with the reason that a gateway gets; for others no server is there."""

MODEL_GONE_RETRY_S = 10
"""Guessed: a server that is replaced is back within some seconds, one that loads a large model is not."""

LARGE_BODIES_RETRY_S = 5
"""Guessed: most bodies are here, and their responses begun, within seconds."""


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """`Retry-After` is at most `max_retry_after_s`."""

    max_retry_after_s: Count = 60  # guessed


class Returns:
    """Tells refused clients when to come back: when the clients that were refused before have been taken.

    All of these count, by model, as if they waited in a queue here. So a client that is refused while many
    are away is sent away for longer, and each for a little longer than the one before. The times are spread
    besides, so that clients that are refused at one instant do not come back at one.
    """

    def __init__(self, rules: AdmissionRules, rng: np.random.Generator) -> None:
        self._rules = rules
        self._rng = rng
        self._promised: dict[str | None, PromisedReturns] = {}

    def retry_after_s(self, model: str | None, view: FleetView, waiting: int = 0) -> int:
        """Return the whole seconds after which a client has a chance of being taken, 1 to the maximum.

        The `waiting` requests come before it, too.
        """
        promised = self._of_model(model, view.now_s)
        seconds = self.spread_s(turn_s(view, waiting + promised.away(view.now_s)))
        promised.promise(view.now_s + seconds)
        return seconds

    def spread_s(self, wait_s: float) -> int:
        """Return whole seconds near a time, different each time, 1 to the maximum."""
        spread = 1 + SPREAD * (2 * self._rng.random() - 1)
        longest_s = self._rules.max_retry_after_s / (1 + SPREAD)
        return max(1, int(min(wait_s, longest_s) * spread))

    def _of_model(self, model: str | None, now_s: float) -> PromisedReturns:
        promised = self._promised.get(model)
        if promised is None:
            self._promised = {name: each for name, each in self._promised.items() if each.away(now_s)}
            promised = self._promised[model] = PromisedReturns()
        return promised


def turn_s(view: FleetView, before: int) -> float:
    """Return the seconds until a candidate can be expected to take one more, after this many `before` it.

    Those before it are taken by all candidates together; inf where nothing tells.
    """
    now_s = view.now_s
    waits_s = [math.inf]
    total_per_s = 0.0
    for backend, load in zip(view.backends, view.loads, strict=True):
        if backend.breaker.admits_at_s > now_s:
            waits_s.append(backend.breaker.admits_at_s - now_s)
            continue
        rate_per_s = backend.drain_rate.per_second(backend.own, now_s)
        total_per_s += rate_per_s
        excess = max(1.0, load - backend.closed_above)
        waits_s.append(excess / rate_per_s if rate_per_s > 0 else math.inf)
    return min(waits_s) + (before / total_per_s if total_per_s > 0 else 0.0)


def overloaded(reason: Reason, retry_s: int, api: Api, *, is_for_gateway: bool = False) -> Reject:
    """Return the refusal of a request that some backend would serve at another time."""
    headers = {"retry-after": str(retry_s)}
    status = 503
    if is_for_gateway:
        headers[DROPPED_HEADER] = _CONTENDED.get(reason, NO_ENDPOINTS)
        status = 429 if reason in _CONTENDED else 503
    error = {"message": TEXTS[reason], "type": "overloaded_error", "param": None, "code": status}
    return _reject(status, error, reason, headers, api)


def unknown_model(model: str, api: Api) -> Reject:
    """Return the refusal of a request for a model that no backend serves, in vLLM's words."""
    shown = model if len(model) <= 200 else model[:200] + "…"
    message = f"The model `{shown}` does not exist."
    kind = "not_found_error" if api.has_typed_errors else "NotFoundError"
    error = {"message": message, "type": kind, "param": "model", "code": 404}
    return _reject(404, error, Reason.UNKNOWN_MODEL, {}, api)


def cut_off(api: Api) -> Reject:
    """Return the refusal of a packed body that could not be unpacked whole."""
    message = "The compressed body cannot be unpacked whole: it is damaged, or grows more than a hundredfold."
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": 400}
    return _reject(400, error, Reason.CUT_OFF, {}, api)


def unknown_response(request: Request) -> Reject:
    """Return the refusal of a request about a stored response that no backend is known to have."""
    message = (
        "No server is known to have this stored response. It was made before the router started, or not "
        "through it, or its server has left."
    )
    param = request.api.previous_field or "response_id"
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": 404}
    return _reject(404, error, Reason.UNKNOWN_RESPONSE, {}, request.api)


def _reject(
    status: int, error: Mapping[str, object], reason: Reason, headers: Mapping[str, str], api: Api
) -> Reject:
    body = msgspec.json.encode(
        {"type": "error", "error": error} if api.has_typed_errors else {"error": error}
    )
    if api.is_grpc:  # Envoy makes the text of a status of gRPC of it, and the status of the number
        body = str(error["message"]).encode()
    own_headers = {
        "content-type": "application/json",
        LAYER_HEADER: Layer.REJECT.value,
        REASON_HEADER: reason.value,
    }
    return Reject(status, body, {**own_headers, **headers})
