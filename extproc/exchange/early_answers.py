"""Answers to requests behind a gateway that are not placed at all, in the form of OpenAI's API."""

import msgspec

from extproc.exchange.messages import Reject

DROPPED_HEADER = "x-llm-d-request-dropped-reason"
"""By which gateways and dashboards tell why a picker refused; the values are the llm-d router's."""
NO_ENDPOINTS, SATURATED = "rejected-no-endpoints", "rejected-saturated"

_SOON_S = "1"
"""Guessed: bodies are held for milliseconds."""


def bad_request(message: str) -> Reject:
    """Return the answer to a request that is broken on its way."""
    return _refusal(400, "invalid_request_error", message, {})


def too_large() -> Reject:
    """Return the answer to a request with a body that no request may have."""
    return _refusal(413, "invalid_request_error", "The request is larger than this gateway takes.", {})


def too_much_at_once() -> Reject:
    """Return the answer to a request that comes while there is no memory for its body."""
    message = "Too many large requests are under way. Please retry later."
    return _refusal(429, "overloaded_error", message, {DROPPED_HEADER: SATURATED, "retry-after": _SOON_S})


def no_endpoint() -> Reject:
    """Return the answer to a request while no backend is known."""
    message = "No backend is ready. Please retry later."
    return _refusal(503, "overloaded_error", message, {DROPPED_HEADER: NO_ENDPOINTS, "retry-after": _SOON_S})


def _refusal(status: int, kind: str, message: str, headers: dict[str, str]) -> Reject:
    error = {"message": message, "type": kind, "param": None, "code": status}
    body = msgspec.json.encode({"error": error})
    return Reject(status, body, {"content-type": "application/json", **headers})
